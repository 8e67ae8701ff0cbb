//! Options that the sending sockets inherit from the receiving one.

use std::ffi::OsString;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::socket::{GetSockOpt, SetSockOpt, getsockopt, setsockopt, sockopt};

/// Copies each option that affects how a socket's datagrams leave, such as those that `Mark=`, `IPTOS=` and
/// `BindToDevice=` of a socket unit set.
///
/// # Errors
/// If an option needs a privilege that this process lacks.
pub(super) fn copy(from: &impl AsFd, to: &impl AsFd, is_ipv6: bool) -> io::Result<()> {
    copy_one(from, to, sockopt::BindToDevice, "SO_BINDTODEVICE")?;
    copy_one(from, to, sockopt::IpTransparent, "IP_TRANSPARENT")?;
    copy_one(from, to, sockopt::Ipv4Ttl, "IP_TTL")?;
    copy_one(from, to, sockopt::Ipv4Tos, "IP_TOS")?;
    if is_ipv6 {
        copy_one(from, to, sockopt::Ipv6Ttl, "IPV6_UNICAST_HOPS")?;
        copy_one(from, to, sockopt::Ipv6TClass, "IPV6_TCLASS")?;
    }
    // After IP_TOS, which also sets the priority.
    copy_one(from, to, sockopt::Priority, "SO_PRIORITY")?;
    copy_one(from, to, sockopt::Mark, "SO_MARK")
}

/// Allows binding to an address that this machine does not have.
pub(super) fn allow_any_address(socket: &impl AsFd) -> nix::Result<()> {
    setsockopt(socket, sockopt::IpFreebind, &true)
}

/// Undoes [`allow_any_address`] on the socket `to`, unless the socket `from` also allows any address.
/// Otherwise pings would leave from an IPv6 address that this machine no longer has.
///
/// # Errors
/// If the kernel refuses the option.
pub(super) fn copy_allowed_addresses(from: &impl AsFd, to: &impl AsFd) -> io::Result<()> {
    copy_one(from, to, sockopt::IpFreebind, "IP_FREEBIND")
}

/// Copies an option unless it already has the right value: setting it may need a privilege.
fn copy_one<T, O>(from: &impl AsFd, to: &impl AsFd, option: O, name: &str) -> io::Result<()>
where
    T: PartialEq,
    O: GetSockOpt<Val = T> + SetSockOpt<Val = T> + Copy,
{
    // A kernel without the option has nothing to copy.
    let Ok(value) = getsockopt(from, option) else { return Ok(()) };
    if getsockopt(to, option)? == value {
        return Ok(());
    }
    setsockopt(to, option, &value).map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("cannot set {name}: {error}"))
    })
}

/// The network interface that a socket is bound to. Empty if the socket is bound to none.
pub(super) fn interface(socket: &impl AsFd) -> nix::Result<OsString> {
    getsockopt(socket, sockopt::BindToDevice)
}

/// Rebinds the sockets that lost their network interface, and returns their number.
///
/// # Errors
/// If the interface does not exist, or the process lacks the privilege.
pub(super) fn restore_interface<'a>(
    mut sockets: impl Iterator<Item = &'a UdpSocket>,
    name: &OsString,
) -> io::Result<usize> {
    sockets.try_fold(0, |restored, socket| {
        let is_lost = match interface(socket) {
            Ok(name) => name.is_empty(),
            // A socket stays bound to the index of a deleted interface.
            Err(errno) => errno == Errno::ENODEV,
        };
        if is_lost {
            setsockopt(socket, sockopt::BindToDevice, name)?;
        }
        Ok(restored + usize::from(is_lost))
    })
}
