//! Match fields and actions, byte by byte: known, unknown, and of a wrong length.
#![allow(clippy::unwrap_used, reason = "tests")]

mod openflow_wire;

use mcstat::proto::openflow::{Action, Field, UnknownField, decode_flows};
use openflow_wire::{bytes, flow};

/// Values worked out by hand from the layouts in `ovs-fields(7)`.
#[test]
fn fields_known_and_unknown() {
    let register = |number, value, mask| Field::Register { number, value, mask };
    let unknown = |class, field, has_mask, len| {
        Field::Unknown(UnknownField {
            class,
            field,
            has_mask,
            len,
        })
    };
    let four = |a, b, c, d| std::net::Ipv4Addr::new(a, b, c, d);
    let cases: [(&str, Vec<Field>); 12] = [
        ("80000004 0000000b", vec![Field::InPort(11)]),
        (
            "80001708 efff0101 ffffff00",
            vec![Field::Ipv4Src {
                address: four(239, 255, 1, 0),
                mask: four(255, 255, 255, 0),
            }],
        ),
        // xreg1 without a mask: reg2 and reg3 whole, zero or not.
        (
            "80010208 0000000000000005",
            vec![register(2, 0, u32::MAX), register(3, 5, u32::MAX)],
        ),
        // xreg7: reg14 under a mask, reg15 not at all.
        (
            "80010f10 0000ffff00000000 0000f0f000000000",
            vec![register(14, 0xf0f0, 0xf0f0)],
        ),
        // A mask of zeros says nothing.
        ("80010110 0000000000000000 0000000000000000", vec![]),
        ("00010204 00000009", vec![register(1, 9, u32::MAX)]),
        ("00014a04 00000003", vec![Field::ConjunctionId(3)]),
        (
            "00014004 0a000002",
            vec![Field::TunnelDst {
                address: four(10, 0, 0, 2),
                mask: four(255, 255, 255, 255),
            }],
        ),
        // xreg8 does not exist, ct_state and an experimenter's field are not known.
        ("80011008 0000000000000001", vec![unknown(0x8001, 8, false, 8)]),
        ("0001d308 00000021 00000021", vec![unknown(1, 0x69, true, 8)]),
        ("ffff010a 4f4e4600 0102 0304 0506", vec![unknown(0xffff, 0, true, 10)]),
        // A mask where the standard has none.
        ("80000b04 0800 ffff", vec![unknown(0x8000, 5, true, 4)]),
    ];
    for (hex, expected) in cases {
        let mut flows = Vec::new();
        decode_flows(&flow(1, &bytes(hex), &[]), &mut flows).unwrap();
        assert_eq!(flows[0].fields, expected, "{hex}");
        assert!(flows[0].drops());
    }
    for (hex, have) in [
        ("80000003 00000b", 3),
        ("80000a01 08", 1),
        ("80001706 e0000000 f000", 2),
    ] {
        let error = decode_flows(&flow(1, &bytes(hex), &[]), &mut Vec::new()).unwrap_err();
        assert_eq!(error.reason(), "bad_length", "{hex}");
        assert!(
            error
                .to_string()
                .starts_with(&format!("the length of an OXM value is {have} ")),
            "{error}"
        );
    }
}

/// `set_field`, `resubmit` and what is unknown; layouts from `ovs-actions(7)`.
#[test]
fn actions_known_and_unknown() {
    let cases = [
        // set_field:0x1/0x1->reg15 by its packet register
        (
            "0019 0018 80010f10 0000000000000001 0000000000000001",
            Action::SetField(Field::Register {
                number: 15,
                value: 1,
                mask: 1,
            }),
        ),
        (
            "ffff 0010 00002320 000e fff8 24 000000",
            Action::Resubmit {
                in_port: 0xfff8,
                table: 36,
            },
        ),
        ("0012 0008 00000000", Action::Unknown { kind: 18, len: 8 }),
        (
            "ffff 0010 00002320 0001 fff8 00000000",
            Action::UnknownExperimenter {
                experimenter: 0x2320,
                subtype: 1,
                len: 16,
            },
        ),
        (
            "ffff 0010 4f4e4600 0001 fff8 00000000",
            Action::UnknownExperimenter {
                experimenter: 0x4f4e_4600,
                subtype: 0,
                len: 16,
            },
        ),
    ];
    for (hex, expected) in cases {
        let action = bytes(hex);
        let mut instructions = vec![0, 4, 0, u8::try_from(8 + action.len()).unwrap(), 0, 0, 0, 0];
        instructions.extend_from_slice(&action);
        let mut flows = Vec::new();
        decode_flows(&flow(1, &[], &instructions), &mut flows).unwrap();
        assert_eq!(flows[0].actions, [expected], "{hex}");
        assert!(!flows[0].drops());
    }
}
