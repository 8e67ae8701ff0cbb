//! The local addresses that heartbeats hit, each in 14 bits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

/// A local address that heartbeats hit, as the registry that gave it knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Local(u16);

impl Local {
    /// The kernel's choice.
    pub const NONE: Self = Self(0);

    /// The bits that one takes.
    pub(super) const MASK: u16 = (1 << 14) - 1;

    pub(super) const fn from_bits(bits: u16) -> Self {
        Self(bits & Self::MASK)
    }

    pub(super) const fn to_bits(self) -> u16 {
        self.0
    }
}

/// The addresses behind every [`Local`]. None is ever forgotten.
#[derive(Debug, Default)]
pub(super) struct Locals(RwLock<Table>);

#[derive(Debug, Default)]
struct Table {
    addresses: Vec<IpAddr>,
    locals: HashMap<IpAddr, Local>,
}

impl Locals {
    /// The short form of `address`. Where 16,383 others are known it is the kernel's choice.
    pub(super) fn intern(&self, address: Option<IpAddr>) -> Local {
        let Some(address) = address else { return Local::NONE };
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(local) = known.locals.get(&address) {
            return *local;
        }
        drop(known);
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Table { addresses, locals } = &mut *table;
        if let Some(local) = locals.get(&address) {
            return *local;
        }
        let index = u16::try_from(addresses.len() + 1).ok().filter(|index| *index <= Local::MASK);
        let Some(index) = index else { return Local::NONE };
        addresses.push(address);
        locals.insert(address, Local(index));
        Local(index)
    }

    /// The address that was interned as `local`.
    pub(super) fn address_of(&self, local: Local) -> Option<IpAddr> {
        let index = usize::from(local.0).checked_sub(1)?;
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.addresses.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn each_address_has_one_short_form() {
        let locals = Locals::default();
        assert_eq!(locals.intern(None), Local::NONE);
        assert_eq!(locals.address_of(Local::NONE), None);
        let one = locals.intern(Some(address(1)));
        let other = locals.intern(Some("2001:db8::1".parse().unwrap()));
        assert!(one != other && one != Local::NONE && other != Local::NONE);
        assert_eq!(locals.intern(Some(address(1))), one);
        assert_eq!(locals.address_of(one), Some(address(1)));
        assert_eq!(locals.address_of(other), Some("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn when_all_are_taken_the_kernel_chooses() {
        let locals = Locals::default();
        let last = u32::from(Local::MASK);
        for number in 1..=last {
            let local = locals.intern(Some(address(number)));
            assert_eq!(locals.address_of(local), Some(address(number)));
        }
        assert_eq!(locals.intern(Some(address(last + 1))), Local::NONE);
        assert_eq!(locals.address_of(locals.intern(Some(address(last)))), Some(address(last)));
    }
}
