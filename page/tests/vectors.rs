//! The vectors that the page's script is tested with: what this crate computes for seeded random input.
//!
//! `UPDATE_VECTORS=1 cargo test -p page --test vectors` writes them again.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use page::arithmetic::{WHOLE, scale, share};
use page::language::Language;
use page::number::{NumberFault, read};
use page::texts::Texts;
use serde_json::{Value, json};

const COUNT: usize = 1_000;

/// Compares the vectors with the file, or writes the file.
fn check(name: &str, vectors: &[Value]) {
    assert!(vectors.len() >= COUNT, "{}", vectors.len());
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    let lines: Vec<String> = vectors.iter().map(Value::to_string).collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert!(checked_in == text, "{name} differs: run with UPDATE_VECTORS=1");
}

fn values(rng: &mut Rng) -> Vec<u32> {
    let count = if rng.u8(..4) == 0 { rng.usize(1..=64) } else { rng.usize(2..=12) };
    let most = *rng.choice([300, 1_500, WHOLE].as_slice()).unwrap();
    let zeros = rng.u32(..4);
    (0..count).map(|_| if rng.u32(..4) < zeros { 0 } else { rng.u32(0..=most) }).collect()
}

fn some(rng: &mut Rng, count: usize) -> Vec<usize> {
    let share = rng.u32(..=4);
    (0..count).filter(|_| rng.u32(..4) < share).collect()
}

#[test]
fn shares() {
    let mut rng = Rng::with_seed(1);
    let mut vector = || {
        let values = values(&mut rng);
        let over = some(&mut rng, values.len());
        json!({"values": values, "over": over, "result": share(&values, &over)})
    };
    check("share.json", &(0..COUNT).map(|_| vector()).collect::<Vec<_>>());
}

#[test]
fn scales() {
    let mut rng = Rng::with_seed(2);
    let mut vector = || {
        let values = values(&mut rng);
        let fixed = if rng.bool() { Vec::new() } else { some(&mut rng, values.len()) };
        json!({"values": values, "fixed": fixed, "result": scale(&values, &fixed).ok()})
    };
    check("scale.json", &(0..COUNT).map(|_| vector()).collect::<Vec<_>>());
}

/// Makes a text that is a number, almost a number, or nothing like it.
fn text(rng: &mut Rng) -> String {
    const AROUND: [&str; 9] =
        ["", "", "", " ", "\u{a0}", "%", "\u{a0}\u{66a}", "\u{200f}", "\u{202f}%"];
    const MARKS: [char; 4] = ['.', ',', '\u{66b}', '.'];
    const STRAY: [char; 8] = ['x', '+', '-', '\u{2212}', ' ', 'e', '.', ','];
    let zero = *rng.choice(['0', '0', '0', '\u{660}', '\u{6f0}'].as_slice()).unwrap();
    let digit = |rng: &mut Rng| char::from_u32(u32::from(zero) + rng.u32(..10)).unwrap();
    let mut number = String::new();
    if rng.u8(..12) == 0 {
        number.push(if rng.bool() { '-' } else { '\u{2212}' });
    }
    for _ in 0..rng.usize(0..=3) {
        number.push(digit(rng));
    }
    if rng.bool() {
        number.push(*rng.choice(MARKS.as_slice()).unwrap());
        for _ in 0..rng.usize(0..=3) {
            number.push(digit(rng));
        }
        for _ in 0..rng.usize(0..=2) {
            number.push(zero);
        }
    }
    if rng.u8(..10) == 0 {
        number.push(*rng.choice(STRAY.as_slice()).unwrap());
    }
    let (before, after) =
        (rng.choice(AROUND.as_slice()).unwrap(), rng.choice(AROUND.as_slice()).unwrap());
    format!("{before}{number}{after}")
}

#[test]
fn read_numbers() {
    let mut rng = Rng::with_seed(3);
    let fixed = [
        "",
        "0",
        "100",
        "100.00",
        "100.001",
        "33.330",
        "1,5",
        "1.000,5",
        "١٢٫٥ ٪",
        "۱۲,۵",
        "007",
        "-0",
        "-1",
        "1e1",
    ];
    let texts = fixed.iter().map(|text| (*text).to_owned());
    let texts: Vec<String> = texts.chain((0..COUNT).map(|_| text(&mut rng))).collect();
    let vectors = texts.iter().map(|text| match read(text) {
        Ok(value) => json!({"text": text, "basis_points": value}),
        Err(NumberFault::NotANumber) => json!({"text": text, "fault": "not_a_number"}),
        Err(NumberFault::Range) => json!({"text": text, "fault": "range"}),
        Err(NumberFault::Decimals) => json!({"text": text, "fault": "decimals"}),
    });
    check("read.json", &vectors.collect::<Vec<_>>());
}

#[test]
fn written_numbers() {
    let mut rng = Rng::with_seed(4);
    let mut vectors = Vec::new();
    for language in Language::ALL {
        for basis_points in (0..200).map(|_| rng.u64(0..=10_000)).chain([0, 1, 10, 100, 10_000]) {
            let text = Texts::of(language).numbers().percent(basis_points);
            vectors.push(
                json!({"language": language.tag(), "basis_points": basis_points, "text": text}),
            );
        }
    }
    check("write.json", &vectors);
}
