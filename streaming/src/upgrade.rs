//! From an HTTP request to the protocol that client and server speak from then on; nothing here does input or output.
//!
//! SPDY clients list their protocols in `X-Stream-Protocol-Version`, WebSocket clients in `Sec-WebSocket-Protocol`;
//! the first one in the client's order that is known here is taken.

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{
        CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";
const FORWARD: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const COMMAND: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// Versions of the remote command protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// Errors are plain text.
    V1,
    /// The client can end the input, over SPDY.
    V2,
    /// The size of the terminal can be changed.
    V3,
    /// The status is a JSON document with the exit code.
    V4,
    /// The client can end the input over WebSocket too.
    V5,
}

/// How WebSocket messages carry data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As it is, after a byte with the channel.
    Binary,
    /// In base64, after the channel's digit.
    Base64,
}

/// What carries the streams of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// SPDY/3.1 on the connection itself.
    Spdy,
    /// Channels of a WebSocket.
    WebSocket(Encoding),
    /// SPDY/3.1 inside the messages of a WebSocket.
    Tunnel,
}

/// What a request wants to be upgraded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Offer {
    /// SPDY, with these protocols.
    Spdy(Vec<String>),
    /// WebSocket, with these protocols and the answer to the client's key.
    WebSocket { protocols: Vec<String>, accept: String },
}

/// What client and server speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) transport: Transport,
    pub(crate) version: Version,
    /// Headers of the answer.
    pub(crate) headers: Vec<(HeaderName, String)>,
}

/// An answer that ends the matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) headers: Vec<(HeaderName, String)>,
}

impl Rejection {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), headers: Vec::new() }
    }

    fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Offer {
    /// What the headers of a request say.
    pub(crate) fn read(method: &Method, headers: &HeaderMap) -> Result<Self, Rejection> {
        let upgrade = list(headers, &UPGRADE);
        let wanted = list(headers, &CONNECTION).iter().any(|word| word.eq_ignore_ascii_case("upgrade"));
        if wanted && upgrade.iter().any(|word| word.eq_ignore_ascii_case("websocket")) {
            return websocket(method, headers);
        }
        if wanted && upgrade.iter().any(|word| word.eq_ignore_ascii_case(SPDY)) {
            return Ok(Self::Spdy(list(headers, &STREAM_PROTOCOL)));
        }
        let message = "this URL is for a connection that is upgraded to SPDY/3.1 or websocket, by clients such as \
                       kubectl and crictl; the request's Connection and Upgrade headers ask for neither";
        Err(Rejection::new(StatusCode::BAD_REQUEST, message).with(UPGRADE, format!("{SPDY}, websocket")))
    }

    /// The protocol of a command's session.
    pub(crate) fn command(self) -> Result<Agreed, Rejection> {
        match self {
            // Clients that name no protocol at all are of the first version.
            Self::Spdy(offered) if offered.is_empty() => Ok(Agreed::spdy(Version::V1, None)),
            Self::Spdy(offered) => {
                let known = offered.iter().find(|name| COMMAND.contains(&name.as_str()));
                let known = known.and_then(|name| Some((name, command_protocol(name)?.0)));
                let Some((name, version)) = known else { return Err(unknown_spdy(&offered, &COMMAND)) };
                Ok(Agreed::spdy(version, Some(name)))
            }
            Self::WebSocket { protocols, accept } if protocols.is_empty() => {
                Ok(Agreed::websocket(Transport::WebSocket(Encoding::Binary), Version::V1, None, accept))
            }
            Self::WebSocket { protocols, accept } => {
                let known = protocols.iter().find_map(|name| Some((name, command_protocol(name)?)));
                let Some((name, (version, encoding))) = known else { return Err(unknown_websocket(&protocols)) };
                Ok(Agreed::websocket(Transport::WebSocket(encoding), version, Some(name), accept))
            }
        }
    }

    /// The protocol of a port-forward session; `named` when the request named its ports.
    pub(crate) fn forward(self, named: bool) -> Result<Agreed, Rejection> {
        let agreed = self.forward_protocol()?;
        if matches!(agreed.transport, Transport::WebSocket(_)) && !named {
            let message = "the request for this URL named no port, and over websocket nothing else does: name some";
            return Err(Rejection::new(StatusCode::BAD_REQUEST, message));
        }
        Ok(agreed)
    }

    fn forward_protocol(self) -> Result<Agreed, Rejection> {
        match self {
            Self::Spdy(offered) if offered.is_empty() => Ok(Agreed::spdy(Version::V1, None)),
            Self::Spdy(offered) if offered.iter().any(|name| name == FORWARD) => {
                Ok(Agreed::spdy(Version::V1, Some(FORWARD)))
            }
            Self::Spdy(offered) => Err(unknown_spdy(&offered, &[FORWARD])),
            Self::WebSocket { protocols, accept } if protocols.is_empty() => {
                Ok(Agreed::websocket(Transport::WebSocket(Encoding::Binary), Version::V4, None, accept))
            }
            Self::WebSocket { protocols, accept } => {
                let transport = |name: &str| match name {
                    TUNNEL => Some(Transport::Tunnel),
                    "v4.channel.k8s.io" => Some(Transport::WebSocket(Encoding::Binary)),
                    "v4.base64.channel.k8s.io" => Some(Transport::WebSocket(Encoding::Base64)),
                    _ => None,
                };
                let known = protocols.iter().find_map(|name| Some((name, transport(name)?)));
                let Some((name, transport)) = known else { return Err(unknown_websocket(&protocols)) };
                Ok(Agreed::websocket(transport, Version::V4, Some(name), accept))
            }
        }
    }
}

impl Agreed {
    fn spdy(version: Version, name: Option<&str>) -> Self {
        let mut headers = vec![(CONNECTION, "Upgrade".to_owned()), (UPGRADE, SPDY.to_owned())];
        headers.extend(name.map(|name| (STREAM_PROTOCOL, name.to_owned())));
        Self { transport: Transport::Spdy, version, headers }
    }

    fn websocket(transport: Transport, version: Version, name: Option<&String>, accept: String) -> Self {
        let mut headers =
            vec![(CONNECTION, "Upgrade".to_owned()), (UPGRADE, "websocket".to_owned()), (SEC_WEBSOCKET_ACCEPT, accept)];
        headers.extend(name.map(|name| (SEC_WEBSOCKET_PROTOCOL, name.clone())));
        Self { transport, version, headers }
    }
}

/// The words of a header that may be repeated and hold lists.
fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn websocket(method: &Method, headers: &HeaderMap) -> Result<Offer, Rejection> {
    if method != Method::GET {
        return Err(Rejection::new(StatusCode::METHOD_NOT_ALLOWED, "a websocket begins with GET"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        let message = "only version 13 of the websocket protocol is spoken here";
        return Err(Rejection::new(StatusCode::UPGRADE_REQUIRED, message).with(SEC_WEBSOCKET_VERSION, "13"));
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return Err(Rejection::new(StatusCode::BAD_REQUEST, "the websocket request has no Sec-WebSocket-Key"));
    };
    let accept = derive_accept_key(key.as_bytes());
    Ok(Offer::WebSocket { protocols: list(headers, &SEC_WEBSOCKET_PROTOCOL), accept })
}

/// Version and encoding of a name like `v4.base64.channel.k8s.io`.
fn command_protocol(name: &str) -> Option<(Version, Encoding)> {
    let rest = name.strip_suffix("channel.k8s.io")?;
    let (rest, encoding) = match rest.strip_suffix("base64.") {
        Some(rest) => (rest, Encoding::Base64),
        None => (rest, Encoding::Binary),
    };
    let version = match rest {
        "" => Version::V1,
        "v2." => Version::V2,
        "v3." => Version::V3,
        "v4." => Version::V4,
        "v5." => Version::V5,
        _ => return None,
    };
    Some((version, encoding))
}

fn unknown_spdy(offered: &[String], known: &[&str]) -> Rejection {
    let message = format!("the client offers the protocols {}, the server {}", offered.join(", "), known.join(", "));
    known.iter().fold(Rejection::new(StatusCode::FORBIDDEN, message), |rejection, name| {
        rejection.with(ACCEPTED_PROTOCOLS, *name)
    })
}

fn unknown_websocket(offered: &[String]) -> Rejection {
    let message = format!("none of the client's websocket protocols is spoken at this URL: {}", offered.join(", "));
    Rejection::new(StatusCode::FORBIDDEN, message)
}

#[cfg(test)]
mod tests;
