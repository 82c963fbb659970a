//! Groups of a random world, and the addresses that they and rules hold.

use std::net::Ipv4Addr;

use super::{
    Random,
    world::{Select, select},
};

#[derive(Debug, Clone)]
pub(super) enum Members {
    Pods(Select),
    Blocks(Vec<Block>),
    Children(Vec<usize>),
}

#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) cidr: (Ipv4Addr, u32),
    pub(super) except: Vec<(Ipv4Addr, u32)>,
}

/// ClusterGroups `g0` and so on: the last two are of others.
pub(super) fn cluster_wide(random: &mut Random) -> Vec<Members> {
    let [wider, narrower] = nested(random);
    vec![
        Members::Pods(select(random)),
        Members::Blocks(vec![wider, block(random)]),
        Members::Blocks(vec![narrower]),
        Members::Children(vec![0, 1]),
        Members::Children(vec![1, 2]),
    ]
}

/// Groups of a namespace, of the same names.
pub(super) fn of_namespace(random: &mut Random) -> Vec<Members> {
    let pods = loop {
        let select = select(random);
        if !select.is_about_namespaces() {
            break Members::Pods(select);
        }
    };
    let [wider, narrower] = nested(random);
    vec![
        pods,
        Members::Blocks(vec![wider]),
        Members::Blocks(vec![narrower, block(random)]),
        Members::Children(vec![0, 1]),
        Members::Children(vec![1, 2]),
    ]
}

/// A block with an exception, and one that brings a part of what is excepted back and excepts a part of that.
fn nested(random: &mut Random) -> [Block; 2] {
    let address = address(random);
    let mut length = random.of(&[4, 8, 16, 24]);
    let mut longer = || {
        length += 1 + random.below(2) as u32;
        (address, length)
    };
    let [outer, first, second, third] = [(); 4].map(|()| longer());
    [
        Block {
            cidr: outer,
            except: vec![first],
        },
        Block {
            cidr: if random.one_in(2) { first } else { second },
            except: vec![third, (address, 32)],
        },
    ]
}

pub(super) fn address(random: &mut Random) -> Ipv4Addr {
    let base: [[u8; 4]; 7] = [
        [225, 1, 2, 3],
        [225, 1, 2, 2],
        [225, 1, 130, 3],
        [225, 200, 0, 1],
        [224, 0, 0, 1],
        [239, 255, 255, 255],
        [232, 0, 0, 9],
    ];
    let address = u32::from(Ipv4Addr::from(random.of(&base)));
    let flip = if random.one_in(3) { 1 << random.below(28) } else { 0 };
    Ipv4Addr::from(address ^ flip)
}

pub(super) fn block(random: &mut Random) -> Block {
    let (address_, length) = (
        address(random),
        random.of(&[4, 5, 8, 9, 16, 17, 24, 30, 31, 32, 32, 32]),
    );
    let mut except = Vec::new();
    while length < 32 && random.one_in(2) {
        // Inside: the same address beyond some length, bits behind it turned at random.
        let longer = length + 1 + random.below(32 - length as usize) as u32;
        let turned = u32::from(address_) ^ (random.next() as u32 >> length & random.next() as u32);
        except.push((
            Ipv4Addr::from(if random.one_in(2) { turned } else { u32::from(address_) }),
            longer,
        ));
    }
    Block {
        cidr: (address_, length),
        except,
    }
}
