//! What URLs begin with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::Error;
use crate::Config;

/// Addresses that are set aside for documentation, so that they lie behind the default route.
const ELSEWHERE_V4: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
const ELSEWHERE_V6: (Ipv6Addr, u16) = (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9);

/// The configured base, or the address of the listener.
pub(super) async fn base_url(config: &Config, address: SocketAddr) -> Result<String, Error> {
    if config.base_url.is_empty() {
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let address = SocketAddr::new(reachable(address.ip()).await, address.port());
        return Ok(format!("{scheme}://{address}"));
    }
    if ["http://", "https://"]
        .iter()
        .any(|scheme| config.base_url.strip_prefix(scheme).is_some_and(|it| !it.is_empty()))
    {
        return Ok(config.base_url.trim_end_matches('/').to_owned());
    }
    Err(Error::BaseUrl { url: config.base_url.clone() })
}

/// The host's own address in place of "all addresses": the one that packets to the rest of the world would carry.
async fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => source_v4().await.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(ip) if ip.is_unspecified() => match source_v6().await {
            Some(ip) => ip,
            // A listener on :: takes IPv4 too.
            None => source_v4().await.unwrap_or(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        },
        ip => ip,
    }
}

/// Connecting a datagram socket sends nothing; it makes the kernel choose a route.
async fn source_v4() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
    socket.connect(ELSEWHERE_V4).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}

async fn source_v6() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await.ok()?;
    socket.connect(ELSEWHERE_V6).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests;
