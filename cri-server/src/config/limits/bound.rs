//! Values of limits in the forms that people write them in: `1024`, `"unlimited"`, `"1024:65536"`,
//! `{ soft = 1024, hard = 65536 }`.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use tripod_shim_protocol::{Resource, Rlimit};

const UNLIMITED: &str = "unlimited";

/// A limit, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// So many.
    At(u64),
    /// No limit.
    Unlimited,
}

/// Soft and hard limit of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    /// What a process has.
    pub soft: Bound,
    /// Up to where it may raise that.
    pub hard: Bound,
}

/// The value of a sysctl: a text, or a number as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SysctlValue(pub String);

impl Bound {
    /// The limit, if there is one.
    pub(super) fn number(self) -> Option<u64> {
        match self {
            Self::At(number) => Some(number),
            Self::Unlimited => None,
        }
    }

    /// In words.
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            UNLIMITED => Ok(Self::Unlimited),
            number => {
                let known = number.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok());
                known.map(Self::At).ok_or_else(|| no_limit(&format!("{number:?}")))
            }
        }
    }
}

impl Ulimit {
    /// As the kernel is told, or what is wrong with it. `open_files` is the most that a process may have.
    pub(super) fn rlimit(self, resource: Resource, open_files: u64) -> Result<Rlimit, String> {
        let Self { soft, hard } = self;
        if soft > hard {
            return Err(format!("the soft limit {soft} is above the hard limit {hard}"));
        }
        // With nothing of these no program gets as far as its first line.
        let vital = matches!(
            resource,
            Resource::As | Resource::Cpu | Resource::Data | Resource::Nofile | Resource::Nproc | Resource::Stack
        );
        if vital && soft == Bound::At(0) {
            return Err("no program can run with a limit of 0; give at least 1".to_owned());
        }
        if resource == Resource::Nofile && hard > Bound::At(open_files) {
            return Err(format!("{hard} is above {open_files}, the most on this node (sysctl fs.nr_open)"));
        }
        let value = |bound: Bound| bound.number().unwrap_or(u64::MAX);
        Ok(Rlimit { resource, soft: value(soft), hard: value(hard) })
    }
}

fn no_limit(what: &str) -> String {
    format!("{what} is no limit: it must be a number from 0 on, or \"{UNLIMITED}\"")
}

fn signed<E: de::Error>(number: i64) -> Result<Bound, E> {
    u64::try_from(number).map(Bound::At).map_err(|_| E::custom(no_limit(&number.to_string())))
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(number) => number.fmt(f),
            Self::Unlimited => f.write_str(UNLIMITED),
        }
    }
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::At(number) => serializer.serialize_u64(*number),
            Self::Unlimited => serializer.serialize_str(UNLIMITED),
        }
    }
}

impl Serialize for Ulimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{}", self.soft, self.hard))
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Bound;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number, or \"{UNLIMITED}\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Bound, E> {
                signed(number)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bound, E> {
                Bound::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Ulimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Pair {
            soft: Bound,
            hard: Bound,
        }

        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Ulimit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number, \"{UNLIMITED}\", \"SOFT:HARD\" or {{ soft = …, hard = … }}")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Ulimit, E> {
                signed(number).map(|bound| Ulimit { soft: bound, hard: bound })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ulimit, E> {
                let (soft, hard) = text.split_once(':').unwrap_or((text, text));
                let bound = |text| Bound::parse(text).map_err(E::custom);
                Ok(Ulimit { soft: bound(soft)?, hard: bound(hard)? })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Ulimit, A::Error> {
                let Pair { soft, hard } = Pair::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Ulimit { soft, hard })
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for SysctlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = SysctlValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a number (names of sysctls stand in quotes, for their dots)")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<SysctlValue, E> {
                Ok(SysctlValue(number.to_string()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SysctlValue, E> {
                Ok(SysctlValue(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}
