#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::import::ballot::BallotAllocation;

const META: &str = "META\nkey;value\ndescription;Budget of Smalltown\nunit;Smalltown\ninstance;2031\nvote_type;cumulative\n";
const PROJECTS: &str = "PROJECTS\nproject_id;cost;name;category\n\
    A/1;10;\"Trees; benches\";public space\n\
    A/2;20;Pool;sport\n\
    A/3;30;Pitch;sport\n\
    A/4;40;Concerts;culture\n";

fn file(votes: &str) -> String {
    format!("{META}{PROJECTS}VOTES\nvoter_id;age;vote;points\n{votes}")
}

/// An entry's line, and its person with the shares of culture, public space and sport, or why it is rejected.
type ParsedEntry = (u64, Result<(String, Vec<u16>), String>);

fn entries(text: &str) -> Result<Vec<ParsedEntry>, String> {
    let open = Pabulib::open(text.as_bytes(), Grouping::Category);
    let mut file = open.map_err(|error| error.to_string())?;
    let mut entries = Vec::new();
    while let Some(entry) = file.next_ballot().map_err(|error| error.to_string())? {
        entries.push(match entry {
            Ok(ballot) => {
                let BallotAllocation::Computed(allocation) = ballot.allocation else {
                    panic!("not computed")
                };
                let person = ballot.person.unwrap().reveal().to_owned();
                (ballot.line, Ok((person, allocation.basis_points().to_vec())))
            }
            Err(entry) => (entry.line, Err(entry.detail)),
        });
    }
    Ok(entries)
}

fn reject(vote: &str) -> String {
    let entries = entries(&file(vote)).unwrap();
    let [(15, Err(detail))] = entries.as_slice() else { panic!("{entries:?}") };
    detail.clone()
}

fn fault(text: &str) -> String {
    entries(text).unwrap_err()
}

#[test]
fn points_are_added_up_by_category_and_apportioned() {
    let votes = "v1;30;A/1,A/2,A/3;1,1,1\r\nv2;;A/4;3\r\n\r\nv3;7;A/4,A/1;1,2\r\n";
    let expected = [
        (15, Ok(("smalltown-2031:v1".to_owned(), vec![0, 3333, 6667]))),
        (16, Ok(("smalltown-2031:v2".to_owned(), vec![10_000, 0, 0]))),
        (18, Ok(("smalltown-2031:v3".to_owned(), vec![3333, 6667, 0]))),
    ];
    assert_eq!(entries(&file(votes)).unwrap(), expected);
}

#[test]
fn every_line_ending_gives_the_same_ballots_in_every_section() {
    let text = file("v1;30;A/1,A/2,A/3;1,1,1\nv2;;A/4;3\n");
    let expected = entries(&text).unwrap();
    assert_eq!(expected.len(), 2);
    for ending in ["\r\n", "\r"] {
        assert_eq!(entries(&text.replace('\n', ending)).unwrap(), expected);
    }
    let sections = ["META\n", "PROJECTS\n", "culture\n", "VOTES\n", "1,1,1\n"];
    for end_of_line in sections {
        let mixed = text.replace(end_of_line, &end_of_line.replace('\n', "\r"));
        assert_ne!(mixed, text);
        assert_eq!(entries(&mixed).unwrap(), expected, "{end_of_line}");
    }
}

#[test]
fn a_stray_quote_swallows_neither_projects_nor_ballots() {
    let swallowed =
        file("").replace("A/2;20;Pool", "A/2;20;\"Pool").replace("Concerts", "\"Concerts\"");
    assert!(fault(&swallowed).starts_with("line 10: has a stray quote"), "{}", fault(&swallowed));
    let votes = entries(&file("v1;\"30;A/1;3\nv2;30;\"A/1,A/2\";\"1,1\"\n")).unwrap();
    assert_eq!(votes[0], (15, Err("has a quote that is not closed on its line".to_owned())));
    assert_eq!(votes[1].1.as_ref().unwrap().1, [0, 5000, 5000]);
    // Published files have names with quotes that are not doubled.
    let named = file("v1;30;A/2;3\n").replace("Pool", "\"The\" \"old\" pool");
    assert_eq!(entries(&named).unwrap()[0].1.as_ref().unwrap().1, [0, 0, 10_000]);
}

#[test]
fn a_declared_count_that_differs_is_reported_with_its_line() {
    let text = file("").replace("vote_type", "num_votes;3\nnum_projects;4\nnum_x;many\nvote_type");
    let file = Pabulib::open(text.as_bytes(), Grouping::Category).unwrap();
    assert_eq!(file.project_count(), 4);
    let meta = file.meta();
    assert_eq!(meta.wrong_count("num_votes", 3), None);
    assert_eq!(meta.wrong_count("num_else", 3), None);
    let fault = |key, counted| meta.wrong_count(key, counted).unwrap().to_string();
    assert_eq!(fault("num_votes", 2), "line 6: META declares num_votes `3`, but the file has 2");
    assert_eq!(fault("num_x", 2), "line 8: META declares num_x `many`, but the file has 2");
}

#[test]
fn project_categories_become_the_budgets_categories_in_id_order() {
    let text = file("");
    let file = Pabulib::open(text.as_bytes(), Grouping::Category).unwrap();
    let ids: Vec<_> = file.categories().iter().map(|c| (c.id.as_str(), c.name.as_str())).collect();
    assert_eq!(ids, [("culture", "culture"), ("public-space", "public space"), ("sport", "sport")]);
    assert_eq!(file.meta().title().unwrap(), "Budget of Smalltown 2031");
    assert_eq!(file.meta().instance().unwrap(), "Smalltown 2031");
}

#[test]
fn projects_become_categories_when_grouped_by_project() {
    let text = file("");
    let file = Pabulib::open(text.as_bytes(), Grouping::Project).unwrap();
    let ids: Vec<_> = file.categories().iter().map(|c| (c.id.as_str(), c.name.as_str())).collect();
    let expected =
        [("a-1", "Trees; benches"), ("a-2", "Pool"), ("a-3", "Pitch"), ("a-4", "Concerts")];
    assert_eq!(ids, expected);
}

#[test]
fn an_invalid_ballot_is_rejected_with_its_reason_and_affects_no_other() {
    assert_eq!(reject("v1;30;A/1;0"), "gives no points at all");
    assert_eq!(reject("v1;30;;"), "gives no points at all");
    assert_eq!(reject("v1;30;A/1,A/9;1,2"), "there is no project `A/9`");
    assert_eq!(reject("v1;30;A/1,A/1;1,2"), "has project `A/1` twice");
    assert_eq!(reject("v1;30;A/1,A/2;3"), "has 2 projects but 1 points");
    assert_eq!(reject("v1;30;A/1,;1,2"), "there is no project ``");
    for points in ["-1", "+1", "1.5", "x", "", "99999999999"] {
        let detail = reject(&format!("v1;30;A/1,A/2;1,{points}"));
        assert!(detail.ends_with("points, which is not a whole number"), "{detail}");
    }
    let most = u32::MAX;
    let detail = reject(&format!("v1;30;A/2,A/3;{most},{most}"));
    assert_eq!(detail, "gives more points than can be counted");
    assert_eq!(reject(";30;A/1;3"), "has no voter_id");
    assert_eq!(reject("v1;A/1;3"), "has 3 fields, but the section has 4 columns");

    let entries = entries(&file("v1;30;A/1;0\nv2;30;A/1;3\nv2;30;A/2;3\n")).unwrap();
    assert_eq!(entries[1].1.as_ref().unwrap().1, [0, 10_000, 0]);
    assert_eq!(entries[2], (17, Err("the voter_id has a ballot on an earlier line".to_owned())));
}

#[test]
fn a_file_without_cumulative_pabulib_votes_is_rejected_with_what_was_found() {
    assert!(fault("").contains("the file ends before its section META"));
    assert!(fault("{}\n").starts_with("line 1: expected the line `META`"));
    assert!(fault(META).starts_with("line 6: the file ends before its section PROJECTS"));
    let approval = file("").replace("cumulative", "approval");
    assert!(fault(&approval).contains("the vote_type in META is `approval`; only `cumulative`"));
    let silent = file("").replace("vote_type", "vote_kind");
    assert!(fault(&silent).contains("the vote_type in META is missing"));
    let pointless = file("").replace("points", "score");
    assert!(fault(&pointless).starts_with("line 14: VOTES has no column `points`"));
    let appended = format!("{}v1;30;A/1;3\n{META}", file(""));
    assert!(
        fault(&appended).ends_with("expected the end of the file after VOTES, found section META")
    );
    let disordered = file("").replace("PROJECTS", "VOTES");
    assert_eq!(fault(&disordered), "line 7: expected section PROJECTS, found VOTES");
}

#[test]
fn projects_that_do_not_make_a_budget_are_rejected_with_a_suggestion() {
    let alone = file("").replace("public space", "sport").replace("culture", "sport");
    assert!(fault(&alone).contains("have 1 categories"), "{}", fault(&alone));
    assert!(fault(&alone).ends_with("try `--by project`"));
    let several = file("").replace("A/4;40;Concerts;culture", "A/4;40;Concerts;\"culture,sport\"");
    assert!(fault(&several).contains("is in several categories, `culture,sport`"));
    let none = file("").replace("Concerts;culture", "Concerts;");
    assert_eq!(fault(&none), "line 12: project `A/4` has no category; try `--by project`");
    let twice = file("").replace("A/4", "A/3");
    assert_eq!(fault(&twice), "line 12: project `A/3` appears twice");

    let many: String = (0..65).map(|number| format!("P{number};1;Name;sport\n")).collect();
    let text = file("").replace("A/1;10", &format!("{many}A/1;10"));
    let error = Pabulib::open(text.as_bytes(), Grouping::Project).err().unwrap().to_string();
    assert!(error.contains("have 69 projects, but a budget has 2 to 64 categories"), "{error}");
}

proptest! {
    #[test]
    fn the_order_of_a_ballots_projects_does_not_matter(
        points in prop::collection::vec(0..9_u32, 4).prop_filter("has points", |p| p.iter().any(|p| *p > 0)),
        order in Just(vec![0, 1, 2, 3]).prop_shuffle(),
    ) {
        let vote = |order: &[usize]| {
            let projects: Vec<_> = order.iter().map(|index| format!("A/{}", index + 1)).collect();
            let points: Vec<_> = order.iter().map(|index| points[*index].to_string()).collect();
            entries(&file(&format!("v;1;{};{}\n", projects.join(","), points.join(",")))).unwrap()
        };
        prop_assert_eq!(vote(&order), vote(&[0, 1, 2, 3]));
    }

    #[test]
    fn no_corruption_of_a_file_panics_the_parser(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = file("v1;30;A/1,A/2,A/3;1,1,1\nv2;;A/4;3\n").into_bytes();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes.truncate(end.index(bytes.len()) + 1);
        if let Ok(mut file) = Pabulib::open(bytes.as_slice(), Grouping::Category) {
            while let Ok(Some(_)) = file.next_ballot() {}
        }
    }
}
