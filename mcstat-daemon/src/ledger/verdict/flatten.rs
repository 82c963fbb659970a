//! Ordered rules → prefixes of which the longest match alone decides.
//!
//! Every prefix that a rule names, exceptions included, is a boundary: all addresses whose longest boundary is the same
//! are matched by the same rules. So each boundary carries the rules that hold its whole prefix, in their order, up to
//! the first that asks for no port. A boundary that says what the next wider one says is left out.

use std::collections::BTreeSet;

use mcstat_common::policy::{PORT_ANY_UDP, PORT_RULES, PortRule};

use super::{
    object::Ports,
    prefix::{Block, Prefix},
    resolve::{Content, Term},
};

/// What one prefix decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flat {
    pub(super) space: u8,
    pub(super) prefix: Prefix,
    /// At most [`PORT_RULES`].
    pub(super) rules: Vec<PortRule>,
    pub(super) decision: u16,
}

/// A block's prefix, or one of its exceptions.
#[derive(Debug, Clone, Copy)]
struct Mark {
    space: u8,
    prefix: Prefix,
    /// Position of the rule.
    rule: usize,
    /// Number of the block.
    block: usize,
    except: bool,
}

/// What holds at a boundary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Held {
    /// Rules that ask for ports: position, and for which.
    by_port: Vec<(usize, Range)>,
    /// Those beyond [`PORT_RULES`]: their positions.
    excess: Vec<usize>,
    /// The first rule that does not ask for ports.
    any: Option<usize>,
}

/// UDP ports that a rule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    /// UDP as a whole: fragments too.
    whole: bool,
}

struct Boundary {
    space: u8,
    prefix: Prefix,
    held: Held,
    /// Where its marks begin, in all marks.
    first: usize,
    end: usize,
}

/// The prefixes of one set, sorted. `rules` are the decisions and contents of its rules, in their order.
///
/// # Errors
/// More than [`PORT_RULES`] rules with ports meet somewhere: the positions of those that are too much.
pub(super) fn flatten(rules: &[(u16, &Content)]) -> Result<Vec<Flat>, BTreeSet<usize>> {
    let marks = marks(rules);
    let mut flat = Vec::new();
    let mut excess = BTreeSet::new();
    let mut wider: Vec<Boundary> = Vec::new();
    let mut first = 0;
    while let Some(mark) = marks.get(first) {
        let (space, prefix) = (mark.space, mark.prefix);
        let same = marks
            .iter()
            .skip(first)
            .take_while(|mark| (mark.space, mark.prefix) == (space, prefix));
        let end = first + same.count();
        while wider
            .last()
            .is_some_and(|last| last.space != space || !last.prefix.covers(prefix))
        {
            wider.pop();
        }
        let held = held(rules, &marks, &wider, (first, end));
        excess.extend(&held.excess);
        let says_more = wider
            .last()
            .map_or_else(|| held != Held::default(), |wider| held != wider.held);
        if says_more {
            flat.push(Flat {
                space,
                prefix,
                rules: held.by_port.iter().map(|rule| port_rule(rules, *rule)).collect(),
                decision: held
                    .any
                    .and_then(|rule| rules.get(rule))
                    .map_or(0, |(decision, _)| *decision),
            });
        }
        wider.push(Boundary {
            space,
            prefix,
            held,
            first,
            end,
        });
        first = end;
    }
    if excess.is_empty() { Ok(flat) } else { Err(excess) }
}

/// All marks, a wider prefix before the narrower ones inside it.
fn marks(rules: &[(u16, &Content)]) -> Vec<Mark> {
    let mut marks = Vec::with_capacity(rules.len());
    let mut block = 0;
    for (rule, (_, content)) in rules.iter().enumerate() {
        if content.ports.is_none() {
            continue;
        }
        for Term {
            space,
            block: Block { prefix, except },
        } in &content.terms
        {
            let mark = |prefix, except| Mark {
                space: *space,
                prefix,
                rule,
                block,
                except,
            };
            marks.push(mark(*prefix, false));
            marks.extend(except.iter().map(|prefix| mark(*prefix, true)));
            block += 1;
        }
    }
    marks.sort_by_key(|mark| (mark.space, mark.prefix, mark.rule, mark.block));
    marks
}

/// What holds at the boundary whose marks lie between the two positions.
fn held(rules: &[(u16, &Content)], marks: &[Mark], wider: &[Boundary], (first, end): (usize, usize)) -> Held {
    let own = marks.get(first..end).unwrap_or_default();
    if own.iter().any(|mark| mark.except) {
        // An exception brings back what a wider boundary has left out: begin again from all that is around.
        let around = wider.iter().filter_map(|wider| marks.get(wider.first..wider.end));
        let around = around.chain([own]).collect::<Vec<_>>();
        let includes = merged(around.clone()).filter(|mark| !mark.except && !is_excluded(mark, &around));
        return reduce(rules, includes.map(|mark| mark.rule));
    }
    let inherited = wider.last().into_iter().flat_map(|wider| {
        let by_port = wider.held.by_port.iter().map(|(rule, _)| rule);
        by_port.chain(&wider.held.excess).chain(&wider.held.any).copied()
    });
    let mut positions = inherited.chain(own.iter().map(|mark| mark.rule)).collect::<Vec<_>>();
    positions.sort_unstable();
    reduce(rules, positions.into_iter())
}

/// The marks of several boundaries in the order of their rules. Lazy: as a rule the first few decide.
fn merged(mut around: Vec<&[Mark]>) -> impl Iterator<Item = &Mark> {
    std::iter::from_fn(move || {
        let next = around.iter_mut().filter(|marks| !marks.is_empty());
        let next = next.min_by_key(|marks| marks.first().map(|mark| mark.rule))?;
        let (mark, rest) = next.split_first()?;
        *next = rest;
        Some(mark)
    })
}

/// Whether one of these boundaries is an exception of the mark's block.
fn is_excluded(mark: &Mark, around: &[&[Mark]]) -> bool {
    let wanted = (mark.rule, mark.block);
    around.iter().any(|marks| {
        let from = marks.partition_point(|other| (other.rule, other.block) < wanted);
        let same = marks
            .iter()
            .skip(from)
            .take_while(|other| (other.rule, other.block) == wanted);
        same.into_iter().any(|other| other.except)
    })
}

/// Leaves out the rules that no packet reaches. The positions are sorted; one that comes again is left out too.
fn reduce(rules: &[(u16, &Content)], positions: impl Iterator<Item = usize>) -> Held {
    let mut held = Held::default();
    let mut last = None;
    let mut reached: Vec<(u16, u16)> = Vec::new();
    let mut all_udp = false;
    for position in positions {
        if last.replace(position) == Some(position) {
            continue;
        }
        let ports = rules.get(position).map(|(_, content)| &content.ports);
        let ranges: &[(u16, u16)] = match ports {
            None => continue,
            Some(Ports::Any) => {
                held.any = Some(position);
                break;
            }
            Some(_) if all_udp => continue,
            Some(Ports::AnyUdp) => &[(0, u16::MAX)],
            Some(Ports::Udp(ranges)) => ranges,
        };
        let whole = ports == Some(&Ports::AnyUdp);
        for (first, last) in ranges.iter().copied() {
            // Ranges that together hold every port do not hold fragments; UDP without a port does.
            if !whole && is_covered((first, last), &reached) {
                continue;
            }
            if held.by_port.len() == PORT_RULES {
                held.excess.push(position);
                break;
            }
            held.by_port.push((position, Range { first, last, whole }));
            add(&mut reached, (first, last));
            all_udp |= whole;
        }
    }
    held
}

/// Whether sorted ranges that lie apart hold all of this one.
fn is_covered(range: (u16, u16), ranges: &[(u16, u16)]) -> bool {
    ranges.iter().any(|(first, last)| *first <= range.0 && range.1 <= *last)
}

/// Adds a range; the ranges stay sorted, apart, and without neighbours.
fn add(ranges: &mut Vec<(u16, u16)>, range: (u16, u16)) {
    let (mut first, mut last) = range;
    ranges.retain(|(from, to)| {
        let apart = u32::from(*to) + 1 < u32::from(first) || u32::from(last) + 1 < u32::from(*from);
        if !apart {
            first = first.min(*from);
            last = last.max(*to);
        }
        apart
    });
    ranges.push((first, last));
    ranges.sort_unstable();
}

fn port_rule(rules: &[(u16, &Content)], (position, range): (usize, Range)) -> PortRule {
    PortRule {
        first: range.first,
        last: range.last,
        decision: rules.get(position).map_or(0, |(decision, _)| *decision),
        flags: if range.whole { PORT_ANY_UDP } else { 0 },
    }
}
