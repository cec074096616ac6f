use super::*;

const GOOD: &str = r#"
ingress = ["127.0.0.1"]
threads = 2
max_buffered = 1048576
max_connections_per_source = 100
access_log = { path = "/var/log/lb.log", format = "json" }

[timeouts]
connect_ms = 100

[[listeners]]
port = 80
service = "web"
proxy_protocol = "v1"

[[listeners.endpoints]]
address = "10.0.0.1:8080"
id = "first"
weight = 3
proxy_protocol = "v2"

[[listeners.endpoints]]
address = "[::1]:8080"
draining = true

[[listeners]]
port = 81
accept_proxy = ["10.0.0.0/8", "fd00::1"]
"#;

#[test]
fn a_whole_file() {
    let file = File::parse(GOOD).unwrap();
    let config = file.config();
    assert_eq!(config.threads, Some(2));
    assert_eq!(config.max_buffered, 1_048_576);
    assert_eq!(config.per_source.connections, Some(100));
    assert_eq!(config.per_source.rate, None);
    let log = config.access_log.unwrap();
    assert_eq!(log.path, PathBuf::from("/var/log/lb.log"));
    assert_eq!(log.format, crate::access::Format::Json);
    assert_eq!(config.ingress, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(config.timeouts.connect, Duration::from_millis(100));
    assert_eq!(config.timeouts.idle, Timeouts::default().idle);
    let table = file.table(7);
    assert_eq!((table.version, table.listeners.len()), (7, 2));
    let endpoints = &table.listeners[0].endpoints;
    assert_eq!(
        (endpoints[0].id.as_str(), endpoints[0].weight),
        ("first", 3)
    );
    assert_eq!(endpoints[1].id, "[::1]:8080");
    assert_eq!(endpoints[1].state, EndpointState::Draining);
    assert_eq!(endpoints[0].proxy_protocol, Some(proxy::Version::V2));
    assert_eq!(endpoints[1].proxy_protocol, Some(proxy::Version::V1));
    assert_eq!(table.listeners[0].accept_proxy, []);
    assert_eq!(table.listeners[1].endpoints, []);
    let trusted = &table.listeners[1].accept_proxy;
    assert!(trusted[1].contains("fd00::1".parse().unwrap()));
    assert!(File::parse("").unwrap().table(1).listeners.is_empty());
    let page = |address: &str| {
        let text = format!("metrics = \"{address}\"\n{GOOD}");
        File::parse(&text).unwrap().metrics
    };
    assert_eq!(file.metrics, None);
    // Clients are answered on 127.0.0.1 only.
    for address in ["127.0.0.1:9900", "127.0.0.2:80", "[::1]:80"] {
        assert_eq!(page(address), Some(address.parse().unwrap()));
    }
}

#[track_caller]
fn check(change: (&str, &str), line: usize, reason: &str) {
    let text = GOOD.replacen(change.0, change.1, 1);
    let (at, found) = File::parse(&text).unwrap_err();
    assert_eq!(line_of(&text, at), line, "{found}");
    assert!(found.contains(reason), "{found}");
}

#[test]
fn flaws_have_a_line_and_a_reason() {
    check(
        ("threads = 2", "threads = two"),
        3,
        "threads = two: expected a whole number, 1 or more",
    );
    check(
        ("threads = 2", "threads = 0"),
        3,
        "threads = 0: expected a whole number, 1 or more",
    );
    check(
        ("_source = 100", "_source = 0"),
        5,
        "max_connections_per_source = 0: expected a whole number from 1 to 4294967295",
    );
    check(
        ("\"web\"", "web"),
        13,
        "service = web: expected a text, in quotes",
    );
    check(("threads", "treads"), 3, "unknown field `treads`, expected");
    check(
        ("port = 80", "port = 80000"),
        12,
        "port = 80000: expected a whole number from 1 to 65535",
    );
    check(
        ("port = 81", "port = 80"),
        26,
        "port = 80: another listener before this one has the same port",
    );
    check(
        ("port = 81", "port = 0"),
        27,
        "port = 0: expected a whole number from 1 to 65535",
    );
    check(
        ("port = 81", ""),
        26,
        "port is missing: a whole number from 1 to 65535",
    );
    check(
        ("weight = 3", "weight = 0"),
        16,
        "endpoint first has weight 0",
    );
    check(
        ("10.0.0.1:8080", "web.example:8080"),
        17,
        "address = \"web.example:8080\": expected an IP address and a port, as in \"10.0.0.1:8080\"",
    );
    check(("10.0.0.1:8080", "10.0.0.1:0"), 16, "whose port is 0");
    check(("draining = true", "id = \"first\""), 22, "listed twice");
    check(("[[listeners]]", "[[listeners"), 11, "[[listeners: ");
    check(
        ("\"v2\"", "\"v3\""),
        20,
        "proxy_protocol = \"v3\": expected \"v1\" or \"v2\"",
    );
    check(
        ("10.0.0.0/8", "10.0.0.0/33"),
        28,
        "accept_proxy = [\"10.0.0.0/33\", \"fd00::1\"]: expected networks, as in",
    );
    check(
        ("\"json\"", "\"xml\""),
        6,
        "format = \"xml\": expected \"line\" or \"json\"",
    );
    let metrics = |value: &str| format!("threads = 2\nmetrics = \"{value}\"");
    check(
        ("threads = 2", &metrics("localhost:9900")),
        4,
        "metrics = \"localhost:9900\": expected an IP address and a port from 1, as in",
    );
    check(
        ("threads = 2", &metrics("127.0.0.1:0")),
        4,
        "metrics = \"127.0.0.1:0\": expected an IP address and a port from 1, as in",
    );
    for there in ["127.0.0.1:80", "0.0.0.0:81", "[::]:81"] {
        check(
            ("threads = 2", &metrics(there)),
            4,
            &format!("metrics = \"{there}\": a listener has port 8"),
        );
    }
    let long = "x".repeat(100);
    check(
        ("true", &format!("\"{long}\"")),
        24,
        &format!("draining = \"{}…: expected true or false", &long[..59]),
    );
}

#[test]
fn tables_that_are_none_say_how_they_begin() {
    for (text, line, expected) in [
        (
            "\n[listeners]\nport = 80",
            2,
            "listeners = [listeners]: expected tables, each of which begins with [[listeners]]",
        ),
        (
            "timeouts = 5",
            1,
            "timeouts = 5: expected a table that begins with [timeouts]",
        ),
        (
            "[[listeners]]\nport = 80\n[listeners.endpoints]\naddress = \"10.0.0.1:80\"",
            3,
            "expected tables, each of which begins with [[listeners.endpoints]]",
        ),
    ] {
        let (at, found) = File::parse(text).unwrap_err();
        assert_eq!(line_of(text, at), line, "{found}");
        assert!(found.contains(expected), "{found}");
    }
}

/// No key answers a value of a wrong kind in the words of Rust's types.
#[test]
fn every_key_says_what_it_may_be() {
    let fixed = "control ingress threads max_connections max_buffered max_connections_per_source \
                 max_rate_per_source drain_timeout_ms access_log metrics timeouts listeners";
    let timeouts = "connect_ms half_closed_ms idle_ms proxy_header_ms";
    let listener = "port service policy prefer_local proxy_protocol accept_proxy endpoints";
    let endpoint = "address id weight local proxy_protocol draining";
    for (head, keys) in [
        ("", fixed),
        ("[timeouts]\n", timeouts),
        ("[[listeners]]\n", listener),
        (
            "[[listeners]]\nport = 80\n[[listeners.endpoints]]\n",
            endpoint,
        ),
        ("access_log.", "path format"),
    ] {
        for key in keys.split_whitespace() {
            let text = format!("{head}{key} = 1.5\n");
            let (_, found) = File::parse(&text).unwrap_err();
            let expected = format!("{key} = 1.5: expected ");
            assert!(found.starts_with(&expected), "{text}: {found}");
        }
    }
}
