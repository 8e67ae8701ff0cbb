//! The seed that assigns clients to shards.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

/// The key of the hash that assigns clients to shards. It is secret because strangers choose the hashed addresses,
/// and with the key they could crowd a shard.
///
/// The same seed keeps a client in the same shard, and so at the same phase of the second. Therefore the snapshot
/// stores the seed (`snapshot::Header`), and `daemon::restore` creates the engine with it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed(pub [u64; 2]);

impl Seed {
    /// Creates an unpredictable seed.
    #[must_use]
    pub fn random() -> Self {
        // The OS seeds the keys, so strangers cannot predict the hashes.
        let random = RandomState::new();
        Self([0, 1].map(|n| random.hash_one(n)))
    }
}

impl BuildHasher for Seed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        let Self([key0, key1]) = *self;
        SipHasher13::new_with_keys(key0, key1)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_random_and_never_printed() {
        let [one, other] = [Seed::random(), Seed::random()];
        assert!(one != other && one.0[0] != one.0[1]);
        assert_eq!(format!("{one:?}"), "Seed(hidden)");
    }

    /// A different hash would move the clients of a snapshot to other phases. This is the first published
    /// test vector of SipHash-1-3.
    #[test]
    fn the_hash_is_siphash_1_3() {
        let seed = Seed([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        assert_eq!(std::hash::Hasher::finish(&seed.build_hasher()), 0xabac_0158_050f_c4dc);
    }
}
