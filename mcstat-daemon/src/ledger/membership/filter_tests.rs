//! Every row of the two tables of RFC 9776 §6.4, once as a router with other hosts on the link, once with the only host.

use RecordKind::{
    AllowNewSources as Allow, BlockOldSources as Block, ChangeToExclude as ToEx, ChangeToInclude as ToIn,
    ModeIsExclude as IsEx, ModeIsInclude as IsIn,
};

use super::*;

const GMI: i64 = 260;
const LMQT: i64 = 2;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn source(name: char) -> IpAddr {
    IpAddr::from([192, 0, 2, name as u8])
}

fn set(names: &str) -> BTreeSet<IpAddr> {
    names.chars().map(source).collect()
}

fn intervals(wait: i64) -> Intervals {
    Intervals {
        membership: SignedDuration::from_secs(GMI),
        wait: SignedDuration::from_secs(wait),
    }
}

/// INCLUDE (A), its timers ending at second 100.
fn include(a: &str) -> Filter {
    Filter {
        mode: Mode::Include,
        sources: a.chars().map(|name| (source(name), at(100))).collect(),
        refused: 0,
    }
}

/// EXCLUDE (X, Y), the timers of X ending at second 100 and the group's at 200.
fn exclude(x: &str, y: &str) -> Filter {
    let running = x.chars().map(|name| (source(name), at(100)));
    let blocked = y.chars().map(|name| (source(name), ENDED));
    Filter {
        mode: Mode::Exclude { until: at(200) },
        sources: running.chain(blocked).collect(),
        refused: 0,
    }
}

/// The state as text: mode, group timer, then each source with the second at which its timer ends (`-`: ended).
fn text(filter: &Filter, now: i64) -> String {
    let mode = match filter.mode {
        Mode::Include => "IN".to_owned(),
        Mode::Exclude { until } => format!("EX@{}", until.as_second() - 1_000_000),
    };
    let sources = filter.sources.iter().map(|(source, until)| {
        let IpAddr::V4(source) = source else { unreachable!() };
        let name = char::from(source.octets()[3]);
        match *until > at(now) {
            true => format!(" {name}@{}", until.as_second() - 1_000_000),
            false => format!(" {name}-"),
        }
    });
    mode + &sources.collect::<String>()
}

#[track_caller]
fn check(mut state: Filter, kind: RecordKind, listed: &str, wait: i64, expected: &str) {
    state.apply(kind, &set(listed), at(0), intervals(wait));
    assert_eq!(text(&state, 0), expected);
}

#[test]
fn current_state_records_of_a_shared_link() {
    check(include("ab"), IsIn, "bc", LMQT, "IN a@100 b@260 c@260");
    check(include("ab"), IsEx, "bc", LMQT, "EX@260 b@100 c-");
    check(
        exclude("ab", "cd"),
        IsIn,
        "bce",
        LMQT,
        "EX@200 a@100 b@260 c@260 d- e@260",
    );
    check(exclude("ab", "cd"), IsEx, "bce", LMQT, "EX@260 b@100 c- e@260");
}

#[test]
fn state_change_records_of_a_shared_link() {
    check(include("ab"), Allow, "bc", LMQT, "IN a@100 b@260 c@260");
    check(include("ab"), Block, "bc", LMQT, "IN a@100 b@2");
    check(include("ab"), ToEx, "bc", LMQT, "EX@260 b@2 c-");
    check(include("ab"), ToIn, "bc", LMQT, "IN a@2 b@260 c@260");
    check(
        exclude("ab", "cd"),
        Allow,
        "bce",
        LMQT,
        "EX@200 a@100 b@260 c@260 d- e@260",
    );
    check(exclude("ab", "cd"), Block, "bce", LMQT, "EX@200 a@100 b@2 c- d- e@2");
    check(exclude("ab", "cd"), ToEx, "bce", LMQT, "EX@260 b@2 c- e@2");
    check(exclude("ab", "cd"), ToIn, "bce", LMQT, "EX@2 a@2 b@260 c@260 d- e@260");
}

/// Nobody else can want what the only host gives up.
#[test]
fn state_change_records_of_the_only_host_take_effect_at_once() {
    check(include("ab"), Block, "bc", 0, "IN a@100");
    check(include("ab"), ToEx, "bc", 0, "EX@260 b- c-");
    check(include("ab"), ToIn, "bc", 0, "IN b@260 c@260");
    check(exclude("ab", "cd"), Block, "bce", 0, "EX@200 a@100 b- c- d- e-");
    check(exclude("ab", "cd"), ToEx, "bce", 0, "EX@260 b- c- e-");
    check(exclude("ab", "cd"), ToIn, "bce", 0, "IN b@260 c@260 e@260");
    check(exclude("", ""), ToIn, "", 0, "IN");
    check(include("ab"), Block, "ab", 0, "IN");
}

#[test]
fn what_creates_no_member() {
    for (kind, listed) in [
        (Block, "a"),
        (ToIn, ""),
        (IsIn, ""),
        (Allow, ""),
        (RecordKind::Unknown(7), "a"),
    ] {
        check(Filter::new(), kind, listed, 0, "IN");
        check(Filter::new(), kind, listed, LMQT, "IN");
    }
}

#[test]
fn the_group_timer_turns_exclude_into_include_of_what_still_runs() {
    let mut state = exclude("a", "b");
    state.apply(ToIn, &set("c"), at(150), intervals(LMQT));
    assert_eq!(
        text(&state, 150),
        "EX@152 a- b- c@410",
        "a's timer had ended: it is blocked"
    );
    state.expire(at(152));
    assert_eq!(text(&state, 152), "IN c@410");
    assert_eq!(state.expires(), Some(at(410)));
    state.expire(at(410));
    assert!(state.is_empty());
}

#[test]
fn queries_lower_timers_and_never_raise_them() {
    let wait = SignedDuration::from_secs(LMQT);
    let mut state = exclude("a", "b");
    state.queried(&[], at(0), wait);
    assert_eq!(text(&state, 0), "EX@2 a@100 b-");
    state.queried(&[source('a')], at(199), wait);
    assert_eq!(text(&state, 0), "EX@2 a@100 b-");
    let mut state = include("ab");
    state.queried(&[source('a')], at(0), wait);
    assert_eq!(text(&state, 0), "IN a@2 b@100");
}

#[test]
fn what_is_wanted_lists_the_running_or_the_blocked_sources() {
    let wanted = |filter: &Filter, now| {
        let SourceFilter { mode, sources } = filter.wanted(at(now));
        (mode, sources)
    };
    assert_eq!(
        wanted(&include("ab"), 0),
        (FilterMode::Include, vec![source('a'), source('b')])
    );
    assert_eq!(wanted(&exclude("a", "b"), 0), (FilterMode::Exclude, vec![source('b')]));
    assert_eq!(
        wanted(&exclude("a", "b"), 100),
        (FilterMode::Exclude, vec![source('a'), source('b')])
    );
}

#[test]
fn sources_are_bounded_and_what_is_left_out_is_counted() {
    let many = (0..1000u16)
        .map(|n| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]))
        .collect();
    let mut state = Filter::new();
    state.apply(IsIn, &many, at(0), intervals(0));
    assert_eq!(state.sources.len(), MAX_SOURCES);
    assert_eq!(state.refused, 1000 - MAX_SOURCES as u64);
}
