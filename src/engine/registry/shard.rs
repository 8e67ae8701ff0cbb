//! Goes through one shard of a map, which `DashMap` offers only through its raw tables.

use std::hash::{BuildHasher, Hash};

use dashmap::DashMap;

/// Looks at every entry of a shard, under the shard's lock, which others may hold to look as well.
#[expect(unsafe_code, reason = "the iterator of a raw table is unsafe to make and to read")]
pub(super) fn for_each<K, V, S>(map: &DashMap<K, V, S>, shard: usize, mut look: impl FnMut(&K, &V))
where
    K: Eq + Hash,
    S: BuildHasher + Clone,
{
    let table = map.shards()[shard].read();
    // SAFETY: the iterator must not outlive the table or see it change. The table is locked and
    // borrowed for longer than the iterator.
    for bucket in unsafe { table.iter() } {
        // SAFETY: the iterator yields full buckets, and no reference into one outlives this turn.
        let (key, value) = unsafe { bucket.as_ref() };
        look(key, value.get());
    }
}

/// Keeps those entries of a shard for which `keep` says so, under the shard's lock.
#[expect(unsafe_code, reason = "the iterator of a raw table is unsafe to make and to read")]
pub(super) fn retain<K, V, S>(
    map: &DashMap<K, V, S>,
    shard: usize,
    mut keep: impl FnMut(&K, &mut V) -> bool,
) where
    K: Eq + Hash,
    S: BuildHasher + Clone,
{
    let mut table = map.shards()[shard].write();
    // SAFETY: the iterator must not outlive the table or see it grow. The table is locked and
    // borrowed for longer than the iterator, and nothing here inserts.
    for bucket in unsafe { table.iter() } {
        // SAFETY: the iterator yields full buckets, and no reference into one outlives this turn. The
        // lock is exclusive.
        let (key, value) = unsafe { bucket.as_mut() };
        if !keep(key, value.get_mut()) {
            // SAFETY: the bucket is full, was not erased before, and erasing the one that the
            // iterator yielded last does not disturb it.
            unsafe { table.erase(bucket) };
        }
    }
}
