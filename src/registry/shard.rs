//! Goes through one shard of a map, which `DashMap` offers only through its raw tables.

use std::hash::{BuildHasher, Hash};

use dashmap::DashMap;

/// Keeps those entries of a shard for which `keep` says so, under the shard's lock.
#[expect(unsafe_code, reason = "the iterator of a raw table is unsafe to make and to read")]
pub(super) fn retain<K, V, S>(
    map: &DashMap<K, V, S>,
    shard: usize,
    mut keep: impl FnMut(&K, &V) -> bool,
) where
    K: Eq + Hash,
    S: BuildHasher + Clone,
{
    let mut table = map.shards()[shard].write();
    // SAFETY: the iterator must not outlive the table or see it grow. The table is locked and
    // borrowed for longer than the iterator, and nothing here inserts.
    for bucket in unsafe { table.iter() } {
        // SAFETY: the iterator yields full buckets, and no reference into one outlives this turn.
        let (key, value) = unsafe { bucket.as_ref() };
        if !keep(key, value.get()) {
            // SAFETY: the bucket is full, was not erased before, and erasing the one that the
            // iterator yielded last does not disturb it.
            unsafe { table.erase(bucket) };
        }
    }
}
