//! Properties of the form.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use schemas::default_budgets;

use super::*;
use crate::language::Language;
use crate::texts::Texts;

fn budget() -> Budget {
    default_budgets().unwrap().remove(0)
}

fn values(query: &str) -> FormValues {
    FormValues::of(&budget(), &FormRequest::parse(query.as_bytes()))
}

fn numbers() -> &'static NumberFormat {
    Texts::of(Language::En).numbers()
}

#[test]
fn every_faulty_field_is_reported_and_the_sum_only_of_valid_fields() {
    let form = values("c.health=x&c.defence=101&c.education=1.234&c.unknown=5");
    use NumberFault::{Decimals, NotANumber, Range};
    let faults = [
        FormFault::Field(1, Range),
        FormFault::Field(6, NotANumber),
        FormFault::Field(8, Decimals),
    ];
    assert_eq!(form.faults(), faults);
    assert_eq!(values("c.health=40&c.education=35,5").faults(), [FormFault::Left(2_450)]);
    assert_eq!(values("c.health=90&c.education=35.5").faults(), [FormFault::Over(12_550)]);
    let whole = values("c.health=64.5&c.education=35,5%25").allocation().unwrap();
    assert_eq!(whole.basis_points(), [0, 0, 0, 0, 0, 0, 6_450, 0, 3_550, 0]);
}

#[test]
fn sharing_fills_empty_fields_and_leaves_a_typed_zero() {
    let form = values("c.health=40&c.education=35.5&c.defence=0");
    let applied = form.apply(Tool::Share, numbers()).unwrap();
    assert_eq!(applied.shared, Some(Shared { basis_points: 2_450, categories: 7 }));
    assert_eq!(applied.values.typed()[1], "0");
    assert_eq!(applied.values.faults(), []);
    assert_eq!(applied.values.typed()[6], "40");
    let nothing = applied.values.apply(Tool::Share, numbers()).unwrap();
    assert_eq!((nothing.shared.unwrap().basis_points, &nothing.values), (0, &applied.values));
}

#[test]
fn tools_change_nothing_while_a_field_is_faulty() {
    let form = values("c.health=x&c.education=35.5");
    for tool in [Tool::Share, Tool::Scale] {
        assert_eq!(
            form.apply(tool, numbers()),
            Err(vec![FormFault::Field(6, NumberFault::NotANumber)])
        );
    }
    assert_eq!(form.apply(Tool::Check, numbers()).unwrap().values.typed()[6], "x");
}

#[test]
fn a_query_carries_hostile_values_unchanged() {
    let fields = [("health".to_owned(), "</script>&c.education=1 ü".to_owned())];
    let query = query(&fields, &[("do", "check")]);
    let parsed = FormRequest::parse(query.as_bytes());
    assert_eq!((parsed.fields.as_slice(), parsed.tool), (&fields[..], Some(Tool::Check)));
}

proptest! {
    #[test]
    fn scaling_any_valid_form_makes_an_allocation(shares in prop::collection::vec(0..=10_000_u16, 10)) {
        let form = FormValues::of_shares(&shares, numbers());
        let scaled = form.apply(Tool::Scale, numbers()).unwrap();
        prop_assert!(scaled.values.allocation().is_ok());
    }

    #[test]
    fn parsing_never_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let form = FormRequest::parse(&body);
        let _ = FormValues::of(&budget(), &form).allocation();
    }
}
