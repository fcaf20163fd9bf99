//! Which port leads to which.

use std::str::FromStr;

/// A port here and one in the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Port here; `None` is any that is free.
    pub local: Option<u16>,
    /// Port in the pod.
    pub remote: u16,
}

impl FromStr for Ports {
    type Err = String;

    /// `LOCAL:REMOTE`, `REMOTE` for the same on both sides, `:REMOTE` for any that is free here.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "not [LOCAL:]REMOTE with ports from 1 to 65535".to_owned();
        let port = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u16>().map_err(|_| wrong()),
            false => Err(wrong()),
        };
        let (local, remote) = match text.split_once(':') {
            None => (port(text)?, port(text)?),
            Some(("", remote)) => (0, port(remote)?),
            Some((local, remote)) => (port(local)?, port(remote)?),
        };
        if remote == 0 {
            return Err(wrong());
        }
        Ok(Self { local: (local > 0).then_some(local), remote })
    }
}

#[cfg(test)]
mod tests {
    use super::Ports;

    #[test]
    fn ports_here_and_there() {
        let read = |text: &str| text.parse::<Ports>();
        assert_eq!(read("8080:80"), Ok(Ports { local: Some(8080), remote: 80 }));
        assert_eq!(read("80"), Ok(Ports { local: Some(80), remote: 80 }));
        assert_eq!(read(":80"), Ok(Ports { local: None, remote: 80 }));
        assert_eq!(read("0:80"), Ok(Ports { local: None, remote: 80 }));
        for text in ["", ":", "0", "80:", "80:0", "65536", "-1:80", "+1:80", "http", "1:2:3", " 80"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
