//! Where connections are accepted.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use tokio::net::TcpListener;

use crate::CliError;

/// How often a free port of one address is tried at the others: each of them may have it in use.
const TRIES: usize = 16;

/// An address of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// This one.
    Ip(IpAddr),
    /// Loopback, in each family that there is.
    Localhost,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "localhost" => Ok(Self::Localhost),
            _ => text.parse().map(Self::Ip).map_err(|_| "neither an IP address nor localhost".to_owned()),
        }
    }
}

/// Listens at all addresses, everywhere at the same port; without one, at any that is free.
pub(super) async fn all(addresses: &[Address], port: Option<u16>) -> Result<Vec<TcpListener>, CliError> {
    let wanted = port.map_or_else(|| "a free port".to_owned(), |port| format!("port {port}"));
    for left in (0..TRIES).rev() {
        match at(addresses, port.unwrap_or_default()).await {
            Err((_, error)) if port.is_none() && left > 0 && error.kind() == ErrorKind::AddrInUse => {}
            Err((ip, error)) => return Err(CliError::io(format!("listen at {wanted} of {ip}"))(error)),
            Ok(listeners) => return Ok(listeners),
        }
    }
    Ok(Vec::new())
}

async fn at(addresses: &[Address], mut port: u16) -> Result<Vec<TcpListener>, (IpAddr, io::Error)> {
    let mut listeners = Vec::new();
    for address in addresses {
        let (ip, second) = match address {
            Address::Ip(ip) => (*ip, None),
            Address::Localhost => (Ipv4Addr::LOCALHOST.into(), Some(IpAddr::from(Ipv6Addr::LOCALHOST))),
        };
        let listener = bind(ip, &mut port).await.map_err(|error| (ip, error))?;
        listeners.push(listener);
        match second {
            None => {}
            Some(ip) => match bind(ip, &mut port).await {
                Ok(listener) => listeners.push(listener),
                // Somebody else who answers at one of the two is worth an error; a machine without IPv6 is not.
                Err(error) if error.kind() == ErrorKind::AddrInUse => return Err((ip, error)),
                Err(_) => {}
            },
        }
    }
    Ok(listeners)
}

/// Listens at an address; the port that was any free one is then known.
async fn bind(ip: IpAddr, port: &mut u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((ip, *port)).await?;
    *port = listener.local_addr()?.port();
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::{Address, all};

    #[tokio::test]
    async fn one_port_at_all_addresses() {
        let addresses = [Address::Localhost, "127.0.0.2".parse().unwrap()];
        let listeners = all(&addresses, None).await.unwrap();
        assert!(listeners.len() >= 2);
        let port = listeners[0].local_addr().unwrap().port();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap().port() == port));
        let error = all(&addresses, Some(port)).await.unwrap_err().to_string();
        assert!(error.contains(&format!("listen at port {port} of 127.0.0.1")), "{error}");
        assert!("example.org".parse::<Address>().is_err());
    }
}
