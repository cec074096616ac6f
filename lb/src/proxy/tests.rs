//! Headers to the byte, and bytes that are none.

use proptest::prelude::*;

use super::*;

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

#[test]
fn a_line_to_the_byte() {
    let check = |source, destination, line: &str| {
        let addresses = addresses(source, destination);
        let found = header(Version::V1, &addresses);
        assert_eq!(std::str::from_utf8(&found), Ok(line));
    };
    check(
        "192.0.2.1:56324",
        "198.51.100.1:443",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
    );
    check(
        "[2001:db8::1]:1",
        "[2001:db8::2]:65535",
        "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
    );
    // What a listener of both families sees is IPv4 all the same.
    check(
        "[::ffff:192.0.2.1]:1",
        "[::ffff:192.0.2.2]:2",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    );
}

#[test]
fn a_binary_header_to_the_byte() {
    let v4 = addresses("192.0.2.1:258", "198.51.100.1:443");
    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    expected.extend([192, 0, 2, 1, 198, 51, 100, 1, 1, 2, 1, 187]);
    assert_eq!(header(Version::V2, &v4), expected);
    let v6 = addresses("[2001:db8::1]:1", "[::1]:2");
    let found = header(Version::V2, &v6);
    assert_eq!(found.len(), 16 + 36);
    assert_eq!(found[12..16], [0x21, 0x21, 0, 36]);
}

#[track_caller]
fn check(bytes: &[u8], expected: &Parsed) {
    assert_eq!(parse(bytes), *expected, "{bytes:?}");
    // No beginning of it is taken for a whole, and none but of one that is
    // refused is refused.
    let whole = match expected {
        Parsed::Header { len, .. } => *len,
        Parsed::Incomplete => bytes.len(),
        Parsed::Malformed(_) => return,
    };
    for len in 0..whole {
        assert_eq!(parse(&bytes[..len]), Parsed::Incomplete, "{len}");
    }
}

fn whole(len: usize, addresses: Option<Addresses>) -> Parsed {
    Parsed::Header { len, addresses }
}

#[test]
fn lines_are_read_strictly() {
    let v4 = addresses("192.0.2.1:56324", "198.51.100.1:443");
    let v6 = addresses("[2001:db8::1]:1", "[::1]:2");
    check(
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET /",
        &whole(45, Some(v4)),
    );
    check(b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n", &whole(32, Some(v6)));
    check(b"PROXY UNKNOWN\r\n", &whole(15, None));
    check(b"PROXY UNKNOWN what ever\r\n", &whole(25, None));
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
        "PROXY TCP4 192.0.2.1  198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 ::1 ::1 56324 443\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 01 443\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 443\n",
        "PROXY TCP4 192.0.2.1\r198.51.100.1 1 443",
        "PROXY \r\n",
        "PROXY UNKNOWN what\never\r\n",
        "PROXY UNKNOWN what\rever\r\n",
        "PROXY TCP4\u{e9} 1\r\n",
    ] {
        check(line.as_bytes(), &Parsed::Malformed(Malformed::Line));
    }
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
    check(&endless[..106], &Parsed::Incomplete);
    check(&endless, &Parsed::Malformed(Malformed::LongLine));
    check(
        b"GET / HTTP/1.1\r\n",
        &Parsed::Malformed(Malformed::NoSignature),
    );
    check(b"PROXX", &Parsed::Malformed(Malformed::NoSignature));
    check(b"", &Parsed::Incomplete);
}

/// A binary header with this command, family and body.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

const V4_BODY: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 1, 2, 1, 187];

#[test]
fn binary_headers_are_read_strictly() {
    use Malformed::{Command, Family, Field, Long, NoSignature, Short};
    let v4 = Some(addresses("192.0.2.1:258", "198.51.100.1:443"));
    check(&binary(0x21, 0x11, &V4_BODY), &whole(28, v4));
    // Fields of any kind are skipped, empty ones too.
    let fields = [&V4_BODY[..], &[0xee, 0, 2, 7, 7, 0x04, 0, 0]].concat();
    check(&binary(0x21, 0x11, &fields), &whole(36, v4));
    // A LOCAL one may have no body, or any.
    check(&binary(0x20, 0x00, &[]), &whole(16, None));
    check(&binary(0x20, 0x11, &V4_BODY), &whole(28, None));
    check(&binary(0x20, 0xff, &[1, 2, 3]), &whole(19, None));
    // Kinds of connections that are not TCP have no address of use.
    check(&binary(0x21, 0x00, &[]), &whole(16, None));
    check(&binary(0x21, 0x12, &V4_BODY), &whole(28, None));
    check(&binary(0x21, 0x31, &[0; 216]), &whole(232, None));
    for (bytes, reason) in [
        (binary(0x22, 0x11, &V4_BODY), Command),
        (binary(0x11, 0x11, &V4_BODY), Command),
        (binary(0x21, 0x13, &V4_BODY), Family),
        (binary(0x21, 0x41, &V4_BODY), Family),
        (binary(0x21, 0x11, &V4_BODY[..11]), Short),
        (binary(0x21, 0x21, &V4_BODY), Short),
        (binary(0x21, 0x11, &[0; 4081]), Long),
        (binary(0x21, 0x11, &[&V4_BODY[..], &[1, 0]].concat()), Field),
        (
            binary(0x21, 0x11, &[&V4_BODY[..], &[1, 0, 9, 1]].concat()),
            Field,
        ),
        (
            binary(0x21, 0x11, &[&V4_BODY[..], &[3, 0, 1, 1]].concat()),
            Field,
        ),
        (b"\r\n\r\n\0\r\nQUIX".to_vec(), NoSignature),
    ] {
        check(&bytes, &Parsed::Malformed(reason));
    }
    // What is too long shows before it has come.
    let long = binary(0x21, 0x11, &[0; 60_000]);
    assert_eq!(parse(&long[..16]), Parsed::Malformed(Long));
}

#[test]
fn a_checksum_is_checked() {
    // Of the header with zeros in the checksum's place, by another program.
    const SUM: u32 = 0x6760_8558;
    let with = |sum: [u8; 4]| {
        let body = [&V4_BODY[..], &[3, 0, 4], &sum].concat();
        binary(0x21, 0x11, &body)
    };
    let sum = SUM.to_be_bytes();
    let v4 = Some(addresses("192.0.2.1:258", "198.51.100.1:443"));
    check(&with(sum), &whole(35, v4));
    let mut other = sum;
    other[3] ^= 1;
    check(&with(other), &Parsed::Malformed(Malformed::Checksum));
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

proptest! {
    /// What is written is read again, whatever comes behind it.
    #[test]
    fn written_and_read(
        source in ip(),
        destination in ip(),
        ports in any::<[u16; 2]>(),
        is_v1 in any::<bool>(),
        behind in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let addresses = Addresses {
            source: SocketAddr::new(source, ports[0]),
            destination: SocketAddr::new(destination, ports[1]),
        };
        let version = if is_v1 { Version::V1 } else { Version::V2 };
        let mut bytes = header(version, &addresses);
        let len = bytes.len();
        prop_assert!(!is_v1 || len <= v1::MAX_LEN);
        bytes.extend(behind);
        let Parsed::Header { len: found, addresses: Some(read) } = parse(&bytes) else {
            return Err(TestCaseError::fail(format!("{:?}", parse(&bytes))));
        };
        prop_assert_eq!(found, len);
        prop_assert_eq!(read.in_one_family(), addresses.in_one_family());
    }

    /// Whatever comes, from a good header with a few bytes changed to noise: it is
    /// told the same however it is cut, and no header is longer than what is there.
    #[test]
    fn any_bytes_are_judged_the_same_however_they_come(
        good in prop_oneof![
            Just(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec()),
            Just(b"PROXY UNKNOWN\r\n".to_vec()),
            Just(binary(0x21, 0x11, &[&V4_BODY[..], &[0xee, 0, 2, 7, 7]].concat())),
            Just(binary(0x20, 0x00, &[])),
            Just(Vec::new()),
        ],
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = [good, noise].concat();
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let whole = parse(&bytes);
        if let Parsed::Header { len, .. } = &whole {
            prop_assert!(*len <= bytes.len());
        }
        let mut decided = None;
        for len in 0..=bytes.len() {
            let found = parse(&bytes[..len]);
            match &decided {
                // More bytes change nothing of what was decided; which flaw is
                // named may.
                Some(Parsed::Malformed(_)) => prop_assert!(matches!(found, Parsed::Malformed(_))),
                Some(before) => prop_assert_eq!(&found, before),
                None if found != Parsed::Incomplete => decided = Some(found),
                None => {}
            }
        }
    }
}

#[test]
fn own_headers_name_nobody() {
    for version in [Version::V1, Version::V2] {
        let header = own_header(version);
        let whole = Parsed::Header {
            len: header.len(),
            addresses: None,
        };
        assert_eq!(parse(header), whole, "{version:?}");
        assert_eq!(parse(&header[..header.len() - 1]), Parsed::Incomplete);
    }
}
