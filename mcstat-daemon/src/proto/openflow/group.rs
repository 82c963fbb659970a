//! Group descriptions: the entries of an OFPMP_GROUP_DESC reply (OpenFlow 1.5 §7.3.5.12).
//!
//! ```text
//! |            length             |     type      |      pad      |
//! |                           group_id                            |
//! |       bucket_array_len        |              pad              |
//! |                              pad                              |
//! | buckets: length, action_array_len, bucket_id, actions, properties
//! | properties
//! ```
//! Properties (weight, watched port and group) are stepped over: in a group of type all every bucket gets the packet.

use super::{
    super::cursor::Reader,
    action::{Action, decode_actions},
    error::DecodeError,
};

const FIXED: usize = 16;
const BUCKET_FIXED: usize = 8;

/// What a group does with its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupKind {
    /// 0: every bucket gets a copy.
    All,
    /// 1: one bucket is chosen.
    Select,
    /// 2: there is one bucket.
    Indirect,
    /// 3: the first bucket that lives.
    FastFailover,
    /// Any other.
    Unknown(u8),
}

impl From<u8> for GroupKind {
    fn from(kind: u8) -> Self {
        match kind {
            0 => Self::All,
            1 => Self::Select,
            2 => Self::Indirect,
            3 => Self::FastFailover,
            unknown => Self::Unknown(unknown),
        }
    }
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDesc {
    /// Its number, by which actions name it.
    pub id: u32,
    /// What it does.
    pub kind: GroupKind,
    /// Its buckets, in order.
    pub buckets: Vec<Bucket>,
}

/// One bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its number within the group.
    pub id: u32,
    /// What is done to its copy, in order.
    pub actions: Vec<Action>,
}

/// Appends every group of one part of a reply.
///
/// # Errors
/// [`DecodeError`]; groups before the wrong one are in `groups` then.
pub fn decode_groups(part: &[u8], groups: &mut Vec<GroupDesc>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(part);
    while !reader.rest().is_empty() {
        let entry = entry(&mut reader, FIXED, "a group")?;
        groups.push(decode_group(entry)?);
    }
    Ok(())
}

fn decode_group(mut entry: Reader<'_>) -> Result<GroupDesc, DecodeError> {
    let [kind, _] = entry.array("group")?;
    let id = entry.u32("group")?;
    let buckets_length = entry.u16("group")?;
    entry.take(6, "group")?;
    let mut reader = Reader::new(entry.take(buckets_length.into(), "buckets of a group")?);
    let mut buckets = Vec::new();
    while !reader.rest().is_empty() {
        buckets.push(decode_bucket(self::entry(&mut reader, BUCKET_FIXED, "a bucket")?)?);
    }
    Ok(GroupDesc {
        id,
        kind: kind.into(),
        buckets,
    })
}

fn decode_bucket(mut entry: Reader<'_>) -> Result<Bucket, DecodeError> {
    let actions_length = entry.u16("bucket")?;
    let id = entry.u32("bucket")?;
    // Antrea's have three.
    let mut actions = Vec::with_capacity(3);
    decode_actions(entry.take(actions_length.into(), "actions of a bucket")?, &mut actions)?;
    Ok(Bucket { id, actions })
}

/// What follows the length field of an entry that begins with it.
fn entry<'a>(reader: &mut Reader<'a>, least: usize, what: &'static str) -> Result<Reader<'a>, DecodeError> {
    let length = usize::from(reader.u16(what)?);
    if length < least {
        return Err(DecodeError::BadLength {
            what,
            need: least,
            have: length,
        });
    }
    Ok(Reader::new(reader.take(length - 2, what)?))
}
