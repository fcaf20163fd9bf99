//! nf_tables over netlink: the tables, chains, maps and expressions that `firewall` composes.
//!
//! Expressions work on registers of four bytes; [`R0`] and its successors hold concatenated keys side by side.

use rustix::io::Errno;

use crate::netlink::{ACK, Attributes, CREATE, DUMP, Error, Message, Socket, attribute, text, u32_at};

// Numbers of the kernel's linux/netfilter/nf_tables.h and nfnetlink.h.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
const GETGEN: u16 = 16;
const APPEND: u16 = 0x800;
const INET: u8 = 1;

const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const REG_VERDICT: u32 = 0;
const MAP_FLAG: u32 = 8;

/// The first of sixteen registers of four bytes.
pub(crate) const R0: u32 = 8;

/// Families as `meta nfproto` and `nat` tell them.
pub(crate) const IPV4: u8 = 2;
/// Families as `meta nfproto` and `nat` tell them.
pub(crate) const IPV6: u8 = 10;

/// Points in a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What a packet's metadata tells.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meta {
    Iifname = 6,
    Oifname = 7,
    Nfproto = 15,
    L4proto = 16,
}

/// Where a payload starts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Base {
    Network = 1,
    Transport = 2,
}

/// One change of the rule set, all or nothing.
#[derive(Debug)]
pub(crate) struct Transaction {
    table: String,
    messages: Vec<Message>,
}

impl Transaction {
    /// A change of one table of the inet family.
    pub(crate) fn new(table: &str) -> Self {
        let header = [0, 0, 0, SUBSYSTEM as u8];
        Self {
            table: table.to_owned(),
            messages: vec![Message::new("beginning to change rules", BATCH_BEGIN, 0, &header)],
        }
    }

    fn push(&mut self, step: &'static str, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes)) -> &mut Self {
        self.messages.push(message(step, kind, ACK | flags).with(fill));
        self
    }

    /// The table, if it is not there.
    pub(crate) fn table(&mut self) -> &mut Self {
        let table = self.table.clone();
        self.push("making the nftables table", NEWTABLE, CREATE, |new| {
            new.text(1, &table).be32(2, 0);
        })
    }

    /// Removes the table with all that is in it.
    pub(crate) fn delete_table(&mut self) -> &mut Self {
        let table = self.table.clone();
        self.push("removing the nftables table", DELTABLE, 0, |old| {
            old.text(1, &table);
        })
    }

    /// A chain that rules jump to.
    pub(crate) fn chain(&mut self, name: &str) -> &mut Self {
        let table = self.table.clone();
        self.push("making the nftables chain", NEWCHAIN, CREATE, |new| {
            new.text(1, &table).text(3, name);
        })
    }

    /// A chain that packets enter at a hook; `kind` is `filter` or `nat`.
    pub(crate) fn base_chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32) -> &mut Self {
        let table = self.table.clone();
        self.push("making the nftables chain (does the kernel have nf_tables and nft_nat?)", NEWCHAIN, CREATE, |new| {
            new.text(1, &table).text(3, name).nest(4, |point| {
                point.be32(1, hook as u32).be32(2, priority.cast_unsigned());
            });
            new.text(7, kind);
        })
    }

    /// A chain that drops what is forwarded, as some hosts have one.
    #[cfg(test)]
    pub(crate) fn dropping_chain(&mut self, name: &str) -> &mut Self {
        let table = self.table.clone();
        self.push("making the nftables chain", NEWCHAIN, CREATE, |new| {
            new.text(1, &table).text(3, name).nest(4, |point| {
                point.be32(1, Hook::Forward as u32).be32(2, 0);
            });
            new.be32(5, 0).text(7, "filter");
        })
    }

    /// A map from keys to values, both of fixed size. The type numbers are only for those who list it.
    pub(crate) fn map(&mut self, name: &str, key: (u32, u32), value: (u32, u32)) -> &mut Self {
        let table = self.table.clone();
        let id = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        self.push("making the nftables map", NEWSET, CREATE, |new| {
            new.text(1, &table).text(2, name).be32(3, MAP_FLAG).be32(4, key.0).be32(5, key.1);
            new.be32(6, value.0).be32(7, value.1).be32(10, id);
        })
    }

    /// Puts an entry into a map; one with the same key and another value is refused.
    pub(crate) fn insert(&mut self, map: &str, key: &[u8], value: &[u8]) -> &mut Self {
        let table = self.table.clone();
        self.push("adding to the nftables map", NEWSETELEM, CREATE, |list| {
            list.text(1, &table).text(2, map).nest(3, |elements| {
                elements.nest(LIST_ELEM, |element| {
                    element.nest(1, |data| {
                        data.bytes(DATA_VALUE, key);
                    });
                    element.nest(2, |data| {
                        data.bytes(DATA_VALUE, value);
                    });
                });
            });
        })
    }

    /// Takes an entry out of a map. Needs a transaction of its own: an entry that is not there undoes the whole.
    pub(crate) fn remove(&mut self, map: &str, key: &[u8]) -> &mut Self {
        let table = self.table.clone();
        self.push("removing from the nftables map", DELSETELEM, 0, |list| {
            list.text(1, &table).text(2, map).nest(3, |elements| {
                elements.nest(LIST_ELEM, |element| {
                    element.nest(1, |data| {
                        data.bytes(DATA_VALUE, key);
                    });
                });
            });
        })
    }

    /// A rule at the end of a chain.
    pub(crate) fn rule(&mut self, chain: &str, rule: Rule) -> &mut Self {
        let table = self.table.clone();
        self.push("adding the nftables rule", NEWRULE, CREATE | APPEND, |new| {
            new.text(1, &table).text(2, chain).nest(4, |list| {
                for (name, data) in rule.0 {
                    list.nest(LIST_ELEM, |expression| {
                        expression.text(EXPR_NAME, name).nest(EXPR_DATA, |inner| {
                            inner.append(&data);
                        });
                    });
                }
            });
        })
    }

    /// Makes the change.
    pub(crate) fn commit(mut self, socket: &mut Socket) -> Result<(), Error> {
        let header = [0, 0, 0, SUBSYSTEM as u8];
        self.messages.push(Message::new("changing rules", BATCH_END, 0, &header));
        socket.execute(self.messages)
    }
}

/// A rule: expressions that a packet passes in order, until one does not match.
#[derive(Debug, Default)]
pub(crate) struct Rule(Vec<(&'static str, Attributes)>);

impl Rule {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn push(mut self, name: &'static str, fill: impl FnOnce(&mut Attributes)) -> Self {
        let mut data = Attributes::default();
        fill(&mut data);
        self.0.push((name, data));
        self
    }

    pub(crate) fn meta(self, register: u32, key: Meta) -> Self {
        self.push("meta", |data| {
            data.be32(1, register).be32(2, key as u32);
        })
    }

    pub(crate) fn payload(self, register: u32, base: Base, offset: u32, size: u32) -> Self {
        self.push("payload", |data| {
            data.be32(1, register).be32(2, base as u32).be32(3, offset).be32(4, size);
        })
    }

    fn compare(self, register: u32, operator: u32, value: &[u8]) -> Self {
        self.push("cmp", |data| {
            data.be32(1, register).be32(2, operator).nest(3, |inner| {
                inner.bytes(DATA_VALUE, value);
            });
        })
    }

    pub(crate) fn equals(self, register: u32, value: &[u8]) -> Self {
        self.compare(register, 0, value)
    }

    pub(crate) fn differs(self, register: u32, value: &[u8]) -> Self {
        self.compare(register, 1, value)
    }

    pub(crate) fn mask(self, register: u32, mask: &[u8]) -> Self {
        let size = u32::try_from(mask.len()).unwrap_or(u32::MAX);
        self.push("bitwise", |data| {
            data.be32(1, register).be32(2, register).be32(3, size);
            data.nest(4, |inner| {
                inner.bytes(DATA_VALUE, mask);
            });
            data.nest(5, |inner| {
                inner.bytes(DATA_VALUE, &vec![0; mask.len()]);
            });
        })
    }

    /// The name of the interface is (or is not) this one. Names are compared with all their padding.
    pub(crate) fn interface(self, key: Meta, name: &str, same: bool) -> Self {
        let mut padded = [0; 16];
        let size = name.len().min(15);
        padded[..size].copy_from_slice(&name.as_bytes()[..size]);
        self.meta(R0, key).compare(R0, u32::from(!same), &padded)
    }

    /// The packet goes to one of the host's own addresses.
    pub(crate) fn bound_for_host(self) -> Self {
        const TO: u32 = 2;
        const ADDRESS_TYPE: u32 = 3;
        const LOCAL: u32 = 2;
        self.push("fib", |data| {
            data.be32(1, R0).be32(2, ADDRESS_TYPE).be32(3, TO);
        })
        .equals(R0, &LOCAL.to_ne_bytes())
    }

    /// The connection's destination was changed.
    pub(crate) fn redirected(self) -> Self {
        const STATUS: u32 = 2;
        const DST_NAT: u32 = 1 << 5;
        self.push("ct", |data| {
            data.be32(1, R0).be32(2, STATUS);
        })
        .mask(R0, &DST_NAT.to_ne_bytes())
        .differs(R0, &[0; 4])
    }

    /// Replaces the key that starts at `key` by its value in a map, which is put at `value`.
    pub(crate) fn look_up(self, map: &str, key: u32, value: u32) -> Self {
        self.push("lookup", |data| {
            data.text(1, map).be32(2, key).be32(3, value);
        })
    }

    /// Changes the destination to address and port in registers.
    pub(crate) fn redirect(self, family: u8, address: u32, port: u32) -> Self {
        const DESTINATION: u32 = 1;
        self.push("nat", |data| {
            data.be32(1, DESTINATION).be32(2, family.into()).be32(3, address).be32(5, port);
        })
    }

    /// Gives the packet the address of the interface by which it leaves.
    pub(crate) fn masquerade(self) -> Self {
        self.push("masq", |_| {})
    }

    pub(crate) fn drop(self) -> Self {
        self.verdict(0, None)
    }

    pub(crate) fn jump(self, chain: &str) -> Self {
        self.verdict(-3, Some(chain))
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        self.push("immediate", |data| {
            data.be32(1, REG_VERDICT).nest(2, |inner| {
                inner.nest(DATA_VERDICT, |verdict| {
                    verdict.be32(1, code.cast_unsigned());
                    if let Some(chain) = chain {
                        verdict.text(2, chain);
                    }
                });
            });
        })
    }
}

/// A chain of the host that drops what no rule lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
}

impl Socket {
    /// A number that changes with every change of the host's rules, whoever makes it.
    pub(crate) fn generation(&mut self) -> Result<u32, Error> {
        let answers = self.ask(message("reading the rules' generation", GETGEN, 0))?;
        let id = answers.first().and_then(|answer| attribute(answer.get(4..)?, 1)).and_then(|value| u32_at(value, 0));
        id.map(u32::from_be).ok_or(Error::Answer("reading the rules' generation"))
    }

    /// Whether a table of the inet family is there.
    pub(crate) fn has_table(&mut self, name: &str) -> Result<bool, Error> {
        match self.ask(message("looking up the nftables table", GETTABLE, 0).with(|table| {
            table.text(1, name);
        })) {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Chains at the forward hook whose policy is to drop.
    pub(crate) fn dropping_forward_chains(&mut self) -> Result<Vec<Chain>, Error> {
        let answers = self.ask(Message::new("listing nftables chains", SUBSYSTEM << 8 | GETCHAIN, DUMP, &[0; 4]))?;
        Ok(answers.iter().filter_map(|answer| dropping_forward(answer)).collect())
    }
}

fn message(step: &'static str, kind: u16, flags: u16) -> Message {
    Message::new(step, SUBSYSTEM << 8 | kind, flags, &[INET, 0, 0, 0])
}

fn dropping_forward(answer: &[u8]) -> Option<Chain> {
    let rest = answer.get(4..)?;
    let number = |value: &[u8]| u32_at(value, 0).map(u32::from_be);
    let hook = number(attribute(attribute(rest, 4)?, 1)?)?;
    let policy = number(attribute(rest, 5)?)?;
    // Only the families through which routed packets go.
    let family = *answer.first().filter(|family| [INET, IPV4, IPV6].contains(family))?;
    (hook == Hook::Forward as u32 && policy == 0).then_some(Chain {
        family,
        table: text(attribute(rest, 1)?),
        name: text(attribute(rest, 3)?),
    })
}
