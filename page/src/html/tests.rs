//! Properties of all pages: escaping, withheld results, languages.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use schemas::{Budget, IdentityRule, SubmissionId, default_budgets};
use uuid::Uuid;

use super::*;
use crate::form::{FormRequest, FormValues, Tool};
use crate::history::{History, HistoryPoint};
use crate::language::Language;
use crate::texts::Texts;
use crate::view::{BudgetView, CategoryResult, Results, ShownResults, Withheld};

const HOSTILE: &str = "</script><img src=x onerror=alert(1)> \"'& \u{202e}";

fn now() -> Timestamp {
    "2027-01-01T00:00:00Z".parse().unwrap()
}

fn default_budget() -> Budget {
    default_budgets().unwrap().remove(0)
}

fn hostile_budget() -> Budget {
    let mut budget = default_budget();
    budget.name = HOSTILE.to_owned();
    for category in &mut budget.categories {
        category.name = HOSTILE.to_owned();
        category.description = Some(HOSTILE.repeat(9));
    }
    let presentation = &mut budget.presentation;
    (presentation.description, presentation.contact) = (Some(HOSTILE.into()), Some(HOSTILE.into()));
    if let Some(reference) = &mut presentation.reference {
        (reference.name, reference.source) = (HOSTILE.into(), HOSTILE.into());
    }
    budget
}

fn shown(budget: &Budget) -> Results {
    let json = serde_json::json!({"name": budget.name, "people": 3}).to_string();
    let half = CategoryResult { total_basis_points: 15_000, median_tenths: 455 };
    let mut categories = vec![CategoryResult::default(); budget.categories.len()];
    (categories[0], categories[6]) = (half, half);
    Results::Shown(ShownResults {
        people: 3,
        is_final: false,
        annulled: 0,
        updated_at: Some(now()),
        categories,
        json,
    })
}

/// A history of two hours, in which the first category loses and the seventh gains.
fn over_time() -> History {
    let points = (0..=2_i64).map(|hour| {
        let mut averages = vec![0; 10];
        averages[0] = 600_000 - hour.unsigned_abs() * 50_000;
        averages[6] = 400_000 + hour.unsigned_abs() * 50_000;
        let at = Timestamp::from_second(now().as_second() + 3_600 * hour).unwrap();
        HistoryPoint { at, people: 1_000 + hour.unsigned_abs(), averages }
    });
    History::new(points.collect())
}

/// Renders every page of a budget in one language.
fn pages(budget: &Budget, results: &Results, language: Language) -> Vec<String> {
    let (texts, view) = (Texts::of(language), BudgetView::new(budget, language, now()));
    let values = FormValues::of(
        budget,
        &FormRequest::parse("c.health=%3C%2Fscript%3E&c.defence=7".as_bytes()),
    );
    let faults = values.faults();
    let tidy = FormValues::of(budget, &FormRequest::parse(b"c.health=40"));
    let applied = tidy.apply(Tool::Share, texts.numbers()).unwrap();
    let state = |values, faults, applied| FormState { values, faults, applied };
    let page = |form| {
        budget_page(&BudgetPage {
            texts,
            budget: &view,
            results,
            form,
            query: "",
            public_url: None,
        })
    };
    let submission_id = SubmissionId(Uuid::nil());
    let own =
        MineState::Counted(OwnAllocation { shares: vec![1_000; 10], receipt: HOSTILE.to_owned() });
    let stored = MineState::Stored { receipt: HOSTILE.to_owned() };
    let mine = |state| {
        mine_page(&MinePage {
            texts,
            budget: &view,
            results,
            state,
            submission_id,
            has_session: true,
            fault: Some(HOSTILE),
            query: "",
        })
    };
    let fields = crate::form::fields(budget, &applied.values);
    let confirm = |sign_in| {
        confirm_page(&ConfirmPage {
            texts,
            budget: &view,
            values: &applied.values,
            fields: &fields,
            submission_id,
            fault: Some("unavailable"),
            sign_in,
        })
    };
    vec![
        page(state(&FormValues::empty(budget), &[], None)),
        page(state(&values, &faults, None)),
        page(state(&applied.values, &[], Some(&applied))),
        results_page(texts, &view, results, &over_time(), None),
        results_page(texts, &view, results, &over_time(), Some("https://a.example")),
        confirm(Some(SignIn::Code(CodeField::Required))),
        confirm(Some(SignIn::Email { address: Some(HOSTILE) })),
        mine(own),
        mine(stored),
        mine(MineState::Nobody),
        mine(MineState::Forgotten),
        mine(MineState::AsksCode),
        mine(MineState::AsksEmail { address: None }),
        mine(MineState::AsksEmail { address: Some(HOSTILE.to_owned()) }),
        list_page(texts, std::slice::from_ref(&view)),
        not_found_page(texts, std::slice::from_ref(&view)),
        unavailable_page(texts, "/budgets/taxes", HOSTILE),
    ]
}

fn embed(budget: &Budget, results: &Results, theme: Theme) -> String {
    let texts = Texts::of(Language::En);
    embed_page(texts, &BudgetView::new(budget, Language::En, now()), results, theme)
}

#[test]
fn an_embed_has_its_theme_and_neither_a_form_nor_a_link_that_stays_in_the_frame() {
    let budget = default_budget();
    for (theme, attribute) in [
        (Theme::OfDevice, "dir=\"ltr\">"),
        (Theme::Light, "data-theme=\"light\""),
        (Theme::Dark, "data-theme=\"dark\""),
    ] {
        let page = embed(&budget, &shown(&budget), theme);
        assert!(page.contains(attribute) && page.contains("id=\"averages\""), "{page}");
        assert!(!page.contains("<form") && !page.contains("<input"), "{page}");
        for link in page.split("<a ").skip(1) {
            assert!(link.contains("target=\"_blank\" rel=\"noopener\""), "{link}");
        }
    }
}

#[test]
fn hostile_names_values_and_receipts_are_escaped_on_every_page() {
    let budget = hostile_budget();
    let results = shown(&budget);
    let embed = embed(&budget, &results, Theme::Dark);
    for page in pages(&budget, &results, Language::En).into_iter().chain([embed]) {
        assert!(
            !page.contains("<img") && !page.contains("style=") && !page.contains("javascript:"),
            "{page}"
        );
        // Scripts are ours or data, and none has another script's end in it.
        for script in page.split("<script").skip(1) {
            let (tag, rest) = script.split_once('>').unwrap();
            let content = rest.split_once("</script>").unwrap().0;
            let is_data = tag.contains("application/json") && !content.contains('<');
            assert!(is_data || (tag.contains("src=\"/assets/") && content.is_empty()), "{script}");
        }
        let title = page.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0;
        assert!(!title.contains('\u{202e}') && !title.contains('<'), "{title}");
        // Every hostile text is inside of an element that isolates its direction, an attribute, or data.
        for (at, _) in page.match_indices("&lt;/script&gt;&lt;img") {
            let before = &page[..at];
            let isolated = before.ends_with("<bdi>")
                || before.rfind("<title>") > before.rfind("</title>")
                || before.rfind('<') > before.rfind('>')
                || before.rfind("<bdi>") > before.rfind("</bdi>");
            assert!(isolated, "{}", &page[at.saturating_sub(80)..at]);
        }
    }
}

#[test]
fn pages_are_complete_in_every_language() {
    let budget = default_budget();
    for language in Language::ALL {
        for page in pages(&budget, &shown(&budget), language) {
            let opening =
                format!("<html lang=\"{}\" dir=\"{}\">", language.tag(), language.direction());
            assert!(page.starts_with("<!DOCTYPE html>") && page.contains(&opening), "{page}");
            assert_eq!(page.matches("<h1").count(), 1);
            assert_eq!(page.matches("<main>").count(), 1);
            // A placeholder that was not filled, or a text that is missing; the script's texts have placeholders.
            let shown = page.split_once("<a class=\"skip\"").unwrap().1;
            assert!(!shown.contains('{'), "{shown}");
            for empty in ["<p></p>", "<h1></h1>", "<h2></h2>", "<summary></summary>", "<li></li>"] {
                assert!(!shown.contains(empty), "{empty} in {shown}");
            }
            for other in Language::ALL {
                assert!(page.contains(&format!("hreflang=\"{}\"", other.tag())));
            }
        }
    }
}

#[test]
fn withheld_results_have_no_number_on_any_page() {
    let mut budget = default_budget();
    budget.categories.iter_mut().for_each(|category| category.color = None);
    for withheld in [
        Withheld::AfterClose(now()),
        Withheld::Counting,
        Withheld::MinimumPeople,
        Withheld::UnknownRule,
    ] {
        let results = Results::Withheld(withheld);
        let view = BudgetView::new(&budget, Language::En, now());
        let page =
            results_page(Texts::of(Language::En), &view, &results, &History::default(), None);
        let (_, section) = page.split_once("<section id=\"results\">").unwrap();
        let (section, _) = section.split_once("</section>").unwrap();
        let text =
            section.replace("2027-01-01T00:00:00.000Z", "").replace("1 January 2027, 00:00", "");
        let digits: String = text
            .replace("<h2>", "")
            .replace("</h2>", "")
            .replace("/v1/", "")
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        assert_eq!(digits, "", "{section}");
        for id in ["id=\"averages\"", "id=\"people\"", "class=\"bar-chart\""] {
            assert!(!page.contains(id), "{id}");
        }
        let (_, data) = page.split_once("id=\"page-data\">").unwrap();
        assert!(
            data.contains("\"withheld\":{\"reason\":") && !data.contains("\"version\""),
            "{data}"
        );
    }
}

#[test]
fn the_form_is_usable_only_while_the_budget_is_open() {
    let page = |opens_at: Option<&str>, closes_at: Option<&str>, results: &Results| {
        let at = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        let budget =
            Budget { opens_at: at(opens_at), closes_at: at(closes_at), ..default_budget() };
        let view = BudgetView::new(&budget, Language::En, now());
        let values = FormValues::empty(&budget);
        let form = FormState { values: &values, faults: &[], applied: None };
        budget_page(&BudgetPage {
            texts: Texts::of(Language::En),
            budget: &view,
            results,
            form,
            query: "",
            public_url: None,
        })
    };
    let budget = default_budget();
    let open = page(None, Some("2028-01-31T23:00:00Z"), &shown(&budget));
    assert!(open.contains("id=\"send\"") && open.contains("Open until <time datetime=\"2028-01-31T23:00:00.000Z\">31 January 2028, 23:00 UTC</time>"));
    assert!(open.contains("\"state\":\"open\"") && open.contains("Left to give 100\u{a0}%"));
    // The first submit button of the form never sends.
    let first = open.split_once("<form").unwrap().1.split_once("<button").unwrap().1;
    assert!(first.starts_with(" class=\"default-submit\" name=\"do\" value=\"check\""), "{first}");
    let soon = page(Some("2028-01-01T00:00:00Z"), None, &Results::NotYet);
    assert!(
        soon.contains("<fieldset disabled>")
            && !soon.contains("id=\"send\"")
            && !soon.contains("id=\"averages\"")
    );
    let closed = page(None, Some("2026-12-31T00:00:00Z"), &shown(&budget));
    assert!(!closed.contains("<form") && closed.contains("<details id=\"results\" open>"));
}

#[test]
fn faults_are_listed_above_the_form_and_beside_their_fields() {
    let budget = default_budget();
    let values = FormValues::of(&budget, &FormRequest::parse(b"c.health=x&c.defence=101"));
    let view = BudgetView::new(&budget, Language::En, now());
    let faults = values.faults();
    let form = FormState { values: &values, faults: &faults, applied: None };
    let page = budget_page(&BudgetPage {
        texts: Texts::of(Language::En),
        budget: &view,
        results: &Results::Unavailable,
        form,
        query: "",
        public_url: None,
    });
    assert!(page.contains("<title>Error: How would you split our taxes?</title>"));
    assert!(
        page.contains("<a href=\"#c-health\"><bdi>Health</bdi>: write a number, such as 12.5</a>"),
        "{page}"
    );
    assert!(page.contains(
        "<p class=\"error\" id=\"e-defence\"><bdi>Defence</bdi>: write a number from 0 to 100</p>"
    ));
    assert_eq!(page.matches("aria-invalid=\"true\"").count(), 2);
    assert!(page.contains("value=\"x\"") && page.contains("value=\"101\""));
}

#[test]
fn bars_and_own_marks_are_placed_on_one_scale() {
    let budget = default_budget();
    let state = MineState::Counted(OwnAllocation {
        shares: vec![0, 0, 0, 0, 0, 0, 6_250, 0, 3_750, 0],
        receipt: "3.1042".to_owned(),
    });
    let page = mine_page(&MinePage {
        texts: Texts::of(Language::De),
        budget: &BudgetView::new(&budget, Language::De, now()),
        results: &shown(&budget),
        state,
        submission_id: SubmissionId(Uuid::nil()),
        has_session: false,
        fault: None,
        query: "",
    });
    // 50 and 62.5 of 70 %.
    assert!(
        page.contains("data-scale=\"70\"")
            && page.contains("width=\"71.42%\"")
            && page.contains("x=\"89.28%\""),
        "{page}"
    );
    assert!(
        page.contains("62,5\u{a0}%")
            && page.contains("50,0\u{a0}%")
            && page.contains("45,5\u{a0}%")
    );
    assert!(page.contains("3.1042") && page.contains("c.health=62%2C5"));
}

#[test]
fn the_lines_of_a_history_have_the_same_scales_and_their_ends_as_text() {
    let budget = default_budget();
    let view = BudgetView::new(&budget, Language::En, now());
    let texts = Texts::of(Language::En);
    let page = results_page(texts, &view, &shown(&budget), &over_time(), None);
    let (_, history) = page.split_once("<section id=\"history\">").unwrap();
    let history = history.replace(['\u{a0}', '\u{202f}'], " ");
    // The scale ends at 60 %, the largest average.
    assert!(history.contains("points=\"0,0 500,84 1000,167\""), "{history}");
    assert!(history.contains("points=\"0,334 500,250 1000,167\""), "{history}");
    assert_eq!(history.matches("<polyline").count(), 10);
    for text in [
        "60.0 % → 50.0 %, change \u{2212}10.0 points",
        "40.0 % → 50.0 %, change +10.0 points",
        "0.0 % → 0.0 %, change 0.0 points",
        // Midnight belongs to the day before it.
        "<td>1,002</td>",
        "<td>1,000</td>",
    ] {
        assert!(history.contains(text), "{text}: {history}");
    }
    assert!(!history.contains("<td>1,001</td>") && !history.contains("style="));
    let without = results_page(texts, &view, &shown(&budget), &History::default(), None);
    assert!(!without.contains("id=\"history\""));
}

#[test]
fn results_that_move_in_steps_say_so_in_every_language_until_they_are_final() {
    let budget = Budget { publish_step: 1_000, ..default_budget() };
    let all = [shown(&budget), Results::Withheld(Withheld::MinimumPeople)];
    for (results, language) in
        all.iter().flat_map(|it| Language::ALL.map(|language| (it, language)))
    {
        let note = |budget: &Budget| {
            let texts = Texts::of(language);
            let view = BudgetView::new(budget, language, now());
            let page = results_page(texts, &view, results, &over_time(), None);
            let (_, rest) = page.split_once("id=\"steps\">")?;
            Some(rest.split_once('<')?.0.to_owned())
        };
        let note_of_steps = note(&budget).unwrap();
        let people = Texts::of(language).numbers().whole(1_000);
        assert!(note_of_steps.contains(&people), "{language:?}: {note_of_steps}");
        assert_eq!(note(&default_budget()), None);
    }
}

#[test]
fn the_number_of_annulled_people_is_shown_where_there_are_any() {
    let page = |language, annulled| {
        let budget = default_budget();
        let Results::Shown(shown) = shown(&budget) else { panic!("not shown") };
        let results = Results::Shown(ShownResults { annulled, ..shown });
        let view = BudgetView::new(&budget, language, now());
        results_page(Texts::of(language), &view, &results, &over_time(), None)
    };
    assert!(!page(Language::En, 0).contains("id=\"annulled\""));
    assert!(page(Language::En, 12).contains("Annulled, not counted: 12"));
    for language in Language::ALL {
        assert!(page(language, 12).contains("id=\"annulled\""), "{language:?}");
    }
}

#[test]
fn without_a_number_nobody_is_said_to_have_taken_part_only_if_each_change_is_shown() {
    let nobody = |publish_step, is_final| {
        let budget = Budget { publish_step, ..default_budget() };
        let Results::Shown(shown) = shown(&budget) else { panic!("not shown") };
        let categories = vec![CategoryResult::default(); budget.categories.len()];
        let results = Results::Shown(ShownResults { people: 0, is_final, categories, ..shown });
        let view = BudgetView::new(&budget, Language::En, now());
        let page = results_page(Texts::of(Language::En), &view, &results, &over_time(), None);
        (page.contains("id=\"nobody\""), page.contains("id=\"steps\""))
    };
    assert_eq!(nobody(1, false), (true, false));
    assert_eq!(nobody(3, false), (false, true));
    assert!(!nobody(3, true).1);
}

#[test]
fn the_fault_of_an_address_or_a_code_stands_beside_its_field_in_every_language() {
    let budget = Budget { identity: IdentityRule::Email, ..default_budget() };
    for language in Language::ALL {
        let texts = Texts::of(language);
        let view = BudgetView::new(&budget, language, now());
        for (fault, sentence) in [("email", "fault_email"), ("otp", "fault_otp")] {
            let page = mine_page(&MinePage {
                texts,
                budget: &view,
                results: &Results::NotYet,
                state: MineState::AsksEmail { address: Some("a@example.org".to_owned()) },
                submission_id: SubmissionId(Uuid::nil()),
                has_session: false,
                fault: Some(fault),
                query: "",
            });
            let error = format!("<p class=\"error\" id=\"e-{fault}\">{}</p>", texts.text(sentence));
            assert!(page.contains(&error), "{language:?} {fault}: {page}");
            assert!(page.contains(&format!("hint e-{fault}\" aria-invalid=\"true\"")), "{page}");
            assert!(!page.contains("id=\"fault-summary\""), "{page}");
            assert_eq!(page.matches("aria-invalid").count(), 1, "{page}");
        }
    }
}
