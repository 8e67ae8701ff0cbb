//! Iteration over one shard of a map, which `DashMap` offers only through its raw tables.

use std::hash::{BuildHasher, Hash};

use dashmap::DashMap;

/// Calls `look` for every entry of a shard, under the shard's shared (read) lock.
#[expect(unsafe_code, reason = "the iterator of a raw table is unsafe to make and to read")]
pub(super) fn for_each<K, V, S>(map: &DashMap<K, V, S>, shard: usize, mut look: impl FnMut(&K, &V))
where
    K: Eq + Hash,
    S: BuildHasher + Clone,
{
    let table = map.shards()[shard].read();
    // SAFETY: the iterator must not outlive the table or see it change. The read lock prevents changes, and
    // its guard borrows the table for longer than the iterator lives.
    for bucket in unsafe { table.iter() } {
        // SAFETY: the iterator yields full buckets, and no reference into one outlives this iteration.
        let (key, value) = unsafe { bucket.as_ref() };
        look(key, value.get());
    }
}

/// Retains the entries of a shard for which `keep` returns true, under the shard's exclusive (write) lock.
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
    // SAFETY: the iterator must not outlive the table or see it grow. The write lock's guard borrows the
    // table for longer than the iterator lives, and nothing in the loop inserts.
    for bucket in unsafe { table.iter() } {
        // SAFETY: the iterator yields full buckets, and no reference into one outlives this iteration. The
        // lock is exclusive.
        let (key, value) = unsafe { bucket.as_mut() };
        if !keep(key, value.get_mut()) {
            // SAFETY: the bucket is full and has not been erased before. Erasing the bucket that the iterator
            // yielded last does not invalidate the iterator.
            unsafe { table.erase(bucket) };
        }
    }
}
