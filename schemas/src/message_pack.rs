//! The part of MessagePack that Redis's `cmsgpack` needs: unsigned integers and arrays, in their shortest form.

/// Appends an unsigned integer.
pub(crate) fn push_integer(bytes: &mut Vec<u8>, number: u64) {
    match number {
        0..=0x7f => bytes.push(number as u8),
        0x80..=0xff => bytes.extend([0xcc, number as u8]),
        0x100..=0xffff => {
            bytes.push(0xcd);
            bytes.extend((number as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            bytes.push(0xce);
            bytes.extend((number as u32).to_be_bytes());
        }
        _ => {
            bytes.push(0xcf);
            bytes.extend(number.to_be_bytes());
        }
    }
}

/// Appends the header of an array, whose elements follow.
pub(crate) fn push_array_header(bytes: &mut Vec<u8>, length: u32) {
    match length {
        0..=0xf => bytes.push(0x90 | length as u8),
        0x10..=0xffff => {
            bytes.push(0xdc);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0xdd);
            bytes.extend(length.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_their_shortest_form() {
        let expected: [(u64, &[u8]); 9] = [
            (0, &[0]),
            (127, &[127]),
            (128, &[0xcc, 128]),
            (255, &[0xcc, 255]),
            (256, &[0xcd, 1, 0]),
            (65_535, &[0xcd, 255, 255]),
            (65_536, &[0xce, 0, 1, 0, 0]),
            (4_294_967_295, &[0xce, 255, 255, 255, 255]),
            (4_294_967_296, &[0xcf, 0, 0, 0, 1, 0, 0, 0, 0]),
        ];
        for (number, bytes) in expected {
            let mut packed = Vec::new();
            push_integer(&mut packed, number);
            assert_eq!(packed, bytes, "{number}");
        }
    }

    #[test]
    fn array_headers_have_their_shortest_form() {
        let expected: [(u32, &[u8]); 5] = [
            (0, &[0x90]),
            (15, &[0x9f]),
            (16, &[0xdc, 0, 16]),
            (65_535, &[0xdc, 255, 255]),
            (65_536, &[0xdd, 0, 1, 0, 0]),
        ];
        for (length, bytes) in expected {
            let mut packed = Vec::new();
            push_array_header(&mut packed, length);
            assert_eq!(packed, bytes, "{length}");
        }
    }
}
