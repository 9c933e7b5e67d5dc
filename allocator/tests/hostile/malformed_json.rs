//! Texts that are not JSON, alone and as the value of a member.

/// Each is malformed as a whole text, and makes every text malformed in which it stands for a value.
#[rustfmt::skip]
const TEXTS: &[&[u8]] = &[
    // Nothing.
    b"", b" ", b"\t", b"\r\n\r\n", b"\x00", b"\x1a", b"\xef\xbb\xbf",
    // Numbers.
    b"-", b"+", b".", b"+1", b"++1", b"--1", b"-+1", b"- 1", b"-a", b".5", b"-.5", b"5.", b"-5.", b"5.e1", b".e1",
    b"01", b"-01", b"00", b"-00", b"012.5", b"1e", b"1E", b"1e+", b"1e-", b"1.0e", b"1.0e+", b"0e", b"0.3e", b"1eE2",
    b"1e1.5", b"1e1e1", b"1e 5", b"e5", b"E", b"1.2.3", b"1. 5", b"0 .1", b"0x64", b"0x", b"0b11", b"0o17", b"100f",
    b"100L", b"100n", b"100%", b"$100", b"(100)", b"1/2", b"1+2", b"1-2", b"1_000", b"1 000", b"1,000", b"1'000",
    b"100 100", b"NaN", b"-NaN", b"nan", b"Infinity", b"-Infinity", b"inf", b"+Inf", "∞".as_bytes(), "½".as_bytes(),
    "１００".as_bytes(), "٣٥".as_bytes(), b"100\x00", b"\x00100", b"1a", b"1\"", b"0xfp2",
    // Strings.
    b"\"", b"\"abc", b"abc", b"abc\"", b"'abc'", b"`abc`", "“abc”".as_bytes(), "«abc»".as_bytes(), b"\"\\", b"\"\\\"",
    b"\"\\\\\\\"", b"\"\\a\"", b"\"\\x41\"", b"\"\\'\"", b"\"\\0\"", b"\"\\ \"", b"\"\\\n\"", b"\"\\u\"", b"\"\\u0\"",
    b"\"\\u00\"", b"\"\\u004\"", b"\"\\u00g0\"", b"\"\\U0041\"", b"\"\\u 041\"", b"\"\\u{41}\"", b"\"\\u-041\"",
    b"\"\\ud800\\\"", b"\"\\ud800\\u\"", b"\"\\ud800\\u1\"", 
    b"\"\\ud834\\udd\"", b"\"a\nb\"", b"\"a\rb\"", b"\"a\tb\"",
    b"\"a\x00b\"", b"\"a\x1fb\"", b"\"\x08\"", b"\"a\"b", b"\"a\"\"b\"", b"\"a\" \"b\"", b"\"a\"+\"b\"",
    b"\"\"\"a\"\"\"", b"\\\"a\\\"", b"\\u0022a\\u0022", b"r\"a\"", b"u'a'", b"&quot;a&quot;", b"\"a\";",
    // Literals.
    b"nul", b"nulll", b"Null", b"NULL", b"n", b"tru", b"truee", b"True", b"TRUE", b"t", b"fals", b"falsee", b"False",
    b"f", b"undefined", b"None", b"nil", b"yes", b"void 0", b"true false", b"!true", b"null,", b",null", b"null\x00",
    b"new Date()", b"Object()",
    // Arrays.
    b"[", b"]", b"[[", b"[[]", b"[]]", b"][", b"[,]", b"[ , ]", b"[1,]", b"[,1]", b"[1,,2]", b"[1,2,]", b"[1 2]",
    b"[1;2]", b"[1:2]", b"[\"a\":1]", b"[1", b"[1,", b"[1,2", b"[\"a\"", b"[\"a\",", b"[\"a", b"[1}", b"[}", b"[{]",
    b"[{}", b"[[1]", b"[*]", b"[-]", b"[...]", b"[1,2,...]", b"[01]", b"[.1]", b"[1.]", b"[\"\\u12\"]", b"[nul]",
    b"[1,\n1\n,1", b"[\x0b]", b"[1]x", b"[1],[2]", b"[1][2]", b"(1,2)", b"<1>", b"[undefined]", b"[0,][]",
    // Objects.
    b"{", b"}", b"{{", b"{}}", b"}{", b"{,}", b"{\"a\"}", b"{\"a\":}", b"{:1}", b"{\"a\" 1}", b"{\"a\"::1}",
    b"{\"a\",1}", b"{\"a\":1,}", b"{\"a\":1,,}", b"{,\"a\":1}", b"{\"a\":1,,\"b\":2}", b"{\"a\":1 \"b\":2}",
    b"{\"a\":1;\"b\":2}", b"{a:1}", b"{'a':1}", b"{1:1}", b"{null:1}", b"{[]:1}", b"{{}:1}", b"{\"a\"=1}",
    b"{\"a\"=>1}", b"{\"a\":1:2}", b"{\"a\":a}", b"{\"a\":'b'}", b"{\"a\":1", b"{\"a\":", b"{\"a\"", b"{\"a", b"{\"",
    b"{\"a\":1]", b"{\"a\":[1}", b"{\"a\":{\"b\":1}", b"{\"a\":1}}", b"{\"a\":1}]", b"{\"a\":1}\"", b"{\"a\":1},",
    b"{\"a\":1} x", b"{\"a\":1}\x00", b"\x00{\"a\":1}", b"{\"a\":1}\x1a", b"{\"a\":1}{\"a\":2}",
    b"{\"a\":1}\n{\"a\":2}", b"{\"a\":1},{\"b\":2}", b"{\"a\n\":1}", b"{a}", b"{a b}", b"{*}",
    b"{...a}", b"{\"a\":1,...}", b"{\"a\":(1)}", b"{\"a\":1}#", b"{\"a\":1};", b"({})", b"x={}", b")]}',\n{}",
    // Comments and white space of other languages.
    b"/**/", b"//", b"/* c */ 1", b"1 // c", b"{\"a\":/*c*/1}", b"{\"a\":1//c\n}", b"{\"a\":1}/**/", b"# c\n1",
    b"<!-- c -->1", b"{/**/}", b"\x0b1", b"\x0c1", b"{\"a\":\x0b1}", b"{\"a\":\x0c1}", "\u{a0}1".as_bytes(),
    "1\u{a0}".as_bytes(), "\u{2028}1".as_bytes(), "\u{2060}1".as_bytes(), "{\"a\":\u{3000}1}".as_bytes(),
    // Other formats.
    b"a=1&b=2", b"a: 1", b"---\na: 1", b"a = 1", b"<a>1</a>", b"<?xml version=\"1.0\"?><a/>", b"callback({})",
    b"\x80\x02}q\x00.", b"\xa1aa\x01", b"\x81\xa1a\x01", b"%PDF-1.7", b"d1:ai1ee", b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    // Encodings.
    b"\xef\xbb\xbf\xef\xbb\xbf{}", b"{}\xef\xbb\xbf", b"\xff\xfe{\x00}\x00", b"\xfe\xff\x00{\x00}", b"{\x00}\x00", b"\x00{\x00}",
    b"{\x00\x00\x00}\x00\x00\x00", b"\xff", b"\x80", b"\"\xff\"", b"\"\x80\"", b"\"\xc3\"", b"\"\xe9\"", b"\"\xc0\xaf\"",
    b"\"\xe2\x82\"", b"\"\xed\xa0\x80\"", b"\"\xf4\x90\x80\x80\"", b"\"\xf8\x88\x80\x80\x80\"", b"\xe2\x82", b"{\"\xff\":1}",
    b"[\xff]", b"1\xff",
];

/// JSON by its grammar, but escapes of half a character: no text.
#[rustfmt::skip]
const UNPAIRED_SURROGATES: &[&[u8]] = &[
    b"\"\\ud800\"", b"\"\\udc00\"", b"\"\\ud800\\u0041\"", b"\"\\ud800\\ud800\"", b"\"\\udd1e\\ud834\"", b"{\"\\ud800\":1}",
];

/// All texts, also those that are too long to be written down.
pub fn texts() -> Vec<Vec<u8>> {
    let long = [
        "[".repeat(100_000),
        "{\"a\":".repeat(50_000),
        "[{\"\":".repeat(50_000),
        "[".repeat(100_000) + &"]".repeat(99_999),
        "\"".to_owned() + &"a".repeat(100_000),
        "9".repeat(100_000) + ".",
        "1,".repeat(50_000),
    ];
    let short = TEXTS.iter().map(|text| text.to_vec());
    short.chain(long.map(String::into_bytes)).collect()
}

/// Values that a route refuses, and that do not make the text around them malformed.
pub fn unpaired_surrogates() -> Vec<Vec<u8>> {
    UNPAIRED_SURROGATES.iter().map(|text| text.to_vec()).collect()
}
