//! Laws of any allocation, and of any bytes.

use proptest::prelude::*;

use super::*;

/// Writes basis points as a percentage in one of several spellings.
fn spelling(basis_points: u16, style: u8) -> String {
    let (whole, rest) = (basis_points / 100, basis_points % 100);
    match style % 5 {
        0 => format!("{whole}.{rest:02}"),
        1 => format!("{basis_points}e-2"),
        2 => format!("{whole}.{rest:02}000E0"),
        3 => format!("0.{basis_points:05}e+3"),
        _ if rest == 0 => format!("{whole}"),
        _ if rest % 10 == 0 => format!("{whole}.{}", rest / 10),
        _ => format!("{whole}.{rest:02}"),
    }
}

/// Shares that add up to 10,000, from sorted random cuts.
fn shares() -> impl Strategy<Value = Vec<u16>> {
    proptest::collection::vec(0..=10_000_u16, 1..64).prop_map(|mut cuts| {
        cuts.sort_unstable();
        let mut shares = Vec::new();
        let mut last = 0;
        for cut in cuts.into_iter().chain([10_000]) {
            shares.push(cut - last);
            last = cut;
        }
        shares
    })
}

proptest! {
    #[test]
    fn any_allocation_round_trips_through_its_text_in_any_spelling_and_order(
        shares in shares(), styles in proptest::collection::vec(any::<u8>(), 64),
        order in Just((0..64_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let ids: Vec<String> = (0..shares.len()).map(|n| format!("c-{n}")).collect();
        let budget = budget(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        let members: Vec<String> = order
            .iter()
            .filter(|index| **index < shares.len())
            // A share of 0 may be omitted.
            .filter(|index| shares[**index] > 0 || styles[**index] % 2 == 0)
            .map(|index| format!(r#""c-{index}":{}"#, spelling(shares[*index], styles[*index])))
            .collect();
        let body = format!(r#"{{"person":"p","allocation":{{{}}}}}"#, members.join(","));
        let parsed = submission(body.as_bytes(), &budget).map_err(|problem| {
            TestCaseError::fail(format!("{body}: {problem:?}"))
        })?;
        prop_assert_eq!(parsed.allocation.basis_points(), &shares[..]);
    }

    #[test]
    fn no_bytes_panic_a_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = submission(&bytes, &taxes());
        let _ = json_array(&bytes, &taxes());
        let _ = ndjson(&bytes, &taxes());
        let _ = definition(BudgetId::parse("taxes").unwrap(), &bytes);
    }

    #[test]
    fn no_corruption_of_a_valid_body_panics_a_parser(
        index in 0..120_usize, byte in any::<u8>(), end in 0..130_usize,
    ) {
        let mut body = br#"[{"person":"p-1","allocation":{"health":40,"education":35.5,"defence":24.5},
            "submission_id":"0198c0de-0000-7000-8000-000000000001"}]"#.to_vec();
        if let Some(slot) = body.get_mut(index) {
            *slot = byte;
        }
        body.truncate(end);
        let _ = json_array(&body, &taxes());
        let _ = submission(body.get(1..).unwrap_or_default(), &taxes());
        let _ = ndjson(body.get(1..).unwrap_or_default(), &taxes());
    }
}
