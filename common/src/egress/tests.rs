use super::*;

fn guard(allow: &[&str]) -> Guard {
    Guard::new(allow.iter().map(|net| net.parse().unwrap()).collect())
}

/// The kind of a refusal that is about an address.
#[track_caller]
fn forbidden(url: &str) -> &'static str {
    match guard(&[]).check_url(url) {
        Err(EgressError::Forbidden { kind, .. }) => kind,
        other => panic!("{url}: {other:?}"),
    }
}

#[test]
fn loopback_is_found_in_every_spelling() {
    for host in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "127.255.255.254",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0X7F.1",
        "0x7f.0x0.0x0.0x1",
        "0177.0.0.1",
        "0177.0.0.01",
        "0000000177.0.0.1",
        "127.0x1",
        "127.0.0.0x1",
        "0x7f.00.1",
        "%31%32%37.0.0.1",
        "127%2e0%2e0%2e1",
        "127。0。0。1",
        "\u{ff11}\u{ff12}\u{ff17}\u{ff0e}\u{ff10}.0.1",
        "①②⑦.⓪.⓪.①",
        "𝟏𝟐𝟕.𝟎.𝟎.𝟏",
        "0x7f。1",
        "1\u{ad}27.0.0.1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[0000:0000:0000:0000:0000:0000:0000:0001]",
        "[::0.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7F00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:FF9B::7f00:1]",
        "[2002:7f00:1::]",
        "[2002:7f00:0001:0:0:0:0:1]",
        "[2606:4700::5efe:127.0.0.1]",
        "localhost",
        "LOCALHOST",
        "LocalHost.",
        "a.localhost",
        "a.b.LOCALHOST.",
        "\u{ff4c}\u{ff4f}calhost",
        "%6cocalhost",
        "ⓛocalhost",
    ] {
        for url in [
            format!("http://{host}/"),
            format!("https://{host}:8443/hook?x=1"),
            format!("HTTP://{host}"),
            format!("http:\\\\{host}\\"),
            format!("http:{host}"),
            format!("  http:///{host}/\t"),
        ] {
            assert_eq!(forbidden(&url), "a loopback address", "{url}");
        }
    }
}

#[test]
fn each_kind_of_forbidden_address_is_named() {
    for (host, kind) in [
        ("169.254.169.254", "a cloud metadata address"),
        ("0251.0376.0251.0376", "a cloud metadata address"),
        ("2852039166", "a cloud metadata address"),
        ("[::ffff:a9fe:a9fe]", "a cloud metadata address"),
        ("[fd00:ec2::254]", "a cloud metadata address"),
        ("[FD00:0EC2:0:0:0:0:0:254]", "a cloud metadata address"),
        ("100.100.100.200", "a cloud metadata address"),
        ("168.63.129.16", "a cloud metadata address"),
        ("0", "an unspecified address"),
        ("0.0.0.0", "an unspecified address"),
        ("0.1.2.3", "an unspecified address"),
        ("[::]", "an unspecified address"),
        ("10.0.0.1", "a private address"),
        ("012.1", "a private address"),
        ("172.16.0.1", "a private address"),
        ("172.31.255.255", "a private address"),
        ("192.168.1.1", "a private address"),
        ("3232235777", "a private address"),
        ("[64:ff9b::10.0.0.1]", "a private address"),
        ("[64:ff9b:1::1.1.1.1]", "a private address"),
        ("[64:ff9b:1:ffff::1]", "a private address"),
        ("[2002:0a00:1::1]", "a private address"),
        // Teredo: a private client behind a public server, then a private server.
        ("[2001:0:0101:0101::f5ff:fffe]", "a private address"),
        ("[2001:0:c0a8:0101::fefe:fefe]", "a private address"),
        ("169.254.1.1", "a link-local address"),
        ("[fe80::1]", "a link-local address"),
        ("[febf::1]", "a link-local address"),
        ("[fe80::5efe:1.1.1.1]", "a link-local address"),
        ("[fec0::1]", "a site-local address"),
        ("[fc00::1]", "a unique-local address"),
        ("[fdff:ffff::1]", "a unique-local address"),
        ("100.64.0.1", "a carrier's shared address"),
        ("100.127.255.255", "a carrier's shared address"),
        ("224.0.0.1", "a multicast address"),
        ("239.255.255.250", "a multicast address"),
        ("[ff02::1]", "a multicast address"),
        ("255.255.255.255", "a broadcast address"),
        ("0xffffffff", "a broadcast address"),
        ("240.0.0.1", "a reserved address"),
        ("192.0.0.8", "a reserved address"),
        ("192.88.99.1", "a reserved address"),
        ("[2001:20::1]", "a reserved address"),
        ("[100::1]", "a reserved address"),
        ("[5f00::1]", "a reserved address"),
        ("[4000::1]", "a reserved address"),
        ("192.0.2.1", "an address for documentation"),
        ("198.51.100.1", "an address for documentation"),
        ("203.0.113.1", "an address for documentation"),
        ("[2001:db8::1]", "an address for documentation"),
        ("[3fff::1]", "an address for documentation"),
        ("198.18.0.1", "an address for benchmarks"),
        ("198.19.255.255", "an address for benchmarks"),
        ("[2001:2::1]", "an address for benchmarks"),
    ] {
        assert_eq!(forbidden(&format!("http://{host}/")), kind, "{host}");
    }
}

#[test]
fn public_addresses_and_names_pass() {
    for host in [
        "1.1.1.1",
        "8.8.8.8.",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "[2606:4700:4700::1111]",
        "[::ffff:1.1.1.1]",
        "[64:ff9b::1.1.1.1]",
        "[2002:0101:0101::1]",
        "[2001:0:0101:0101::fefe:fefe]",
        "[2001:200::1]",
        "example.com",
        "EXAMPLE.com.",
        "münchen.example",
        "localhost.example.com",
        "notlocalhost",
        "127.0.0.1.example.com",
    ] {
        for url in [format!("http://{host}/"), format!("https://{host}:8443/hook?token=1#x")] {
            guard(&[]).check_url(&url).unwrap_or_else(|error| panic!("{url}: {error}"));
        }
    }
}

#[test]
fn what_is_no_address_of_a_receiver_says_why() {
    let message = |url: &str| guard(&[]).check_url(url).unwrap_err().to_string();
    for (url, expected) in [
        ("", "callback_url is no URL: relative URL without a base"),
        ("/hook", "callback_url is no URL: relative URL without a base"),
        ("example.com/hook", "callback_url is no URL: relative URL without a base"),
        ("http://", "callback_url is no URL: empty host"),
        ("http://:80/", "callback_url is no URL: empty host"),
        ("http://[fe80::1%25eth0]/", "callback_url is no URL: invalid IPv6 address"),
        ("http://[::1", "callback_url is no URL: invalid IPv6 address"),
        ("http://1.2.3.4.5/", "callback_url is no URL: invalid IPv4 address"),
        ("http://256.0.0.1/", "callback_url is no URL: invalid IPv4 address"),
        ("http://4294967296/", "callback_url is no URL: invalid IPv4 address"),
        ("http://0x7f.0.0.0.1/", "callback_url is no URL: invalid IPv4 address"),
        (
            "http://127.0.0.1%00.example.com/",
            "callback_url is no URL: invalid international domain name",
        ),
        ("http://exa mple.com/", "callback_url is no URL: invalid international domain name"),
        ("http://example.com:99999/", "callback_url is no URL: invalid port number"),
        ("ftp://example.com/", "callback_url must start with http:// or https://"),
        ("file:///etc/passwd", "callback_url must start with http:// or https://"),
        ("gopher://127.0.0.1:70/", "callback_url must start with http:// or https://"),
        ("javascript:alert(1)", "callback_url must start with http:// or https://"),
        ("http+unix://%2Frun%2Fx.sock/", "callback_url must start with http:// or https://"),
        ("http://good@127.0.0.1/", "callback_url must not carry a user name or password"),
        ("http://example.com:80@127.0.0.1/", "callback_url must not carry a user name or password"),
        ("http://:secret@example.com/", "callback_url must not carry a user name or password"),
        ("http://example.com:0/", "callback_url names port 0"),
    ] {
        assert_eq!(message(url), expected, "{url}");
    }
    assert_eq!(
        message("http://0x7f.1:8080/hook?secret=1"),
        "callback_url leads to 127.0.0.1, a loopback address; allow it with \
         callbacks.allow_networks"
    );
    let long = format!("https://example.com/{}", "x".repeat(MAX_URL_BYTES));
    assert_eq!(message(&long), "callback_url has more than 2048 bytes");
}

#[test]
fn a_host_that_looks_like_another_part_of_the_url_is_still_the_host() {
    // An empty user name is none; what follows a '#' or '\' is no host.
    assert_eq!(forbidden("http://@127.0.0.1/"), "a loopback address");
    assert_eq!(forbidden("http://127.0.0.1#@example.com/"), "a loopback address");
    assert_eq!(forbidden("http://127.0.0.1\\@example.com/"), "a loopback address");
    assert_eq!(forbidden("http://127.0.0.1?@example.com/"), "a loopback address");
    assert_eq!(forbidden("ht\ntp://127.0\t.0.1/"), "a loopback address");
}

#[test]
fn an_allowed_network_opens_every_form_of_its_addresses_and_no_other() {
    let guard = guard(&["10.1.0.0/16", "127.0.0.0/8", "fd00:1::/32"]);
    for host in [
        "10.1.2.3",
        "0x0a.0x01.1",
        "[::ffff:10.1.2.3]",
        "[64:ff9b::10.1.2.3]",
        "[2002:0a01:203::]",
        "127.0.0.1",
        "localhost",
        "[fd00:1::5]",
    ] {
        let url = format!("http://{host}/");
        guard.check_url(&url).unwrap_or_else(|error| panic!("{url}: {error}"));
    }
    for host in ["10.2.0.1", "[::1]", "[::ffff:10.2.0.1]", "[fd00:2::5]", "169.254.169.254"] {
        assert!(guard.check_url(&format!("http://{host}/")).is_err(), "{host}");
    }
}

#[tokio::test]
async fn a_literal_resolves_to_itself_and_localhost_to_what_is_allowed() {
    let url = |text: &str| Url::parse(text).unwrap();
    let open = guard(&["127.0.0.0/8"]);
    assert_eq!(
        open.resolve(&url("https://127.1/")).await.unwrap(),
        ["127.0.0.1:443".parse::<SocketAddr>().unwrap()]
    );
    assert_eq!(
        open.resolve(&url("http://localhost:81/")).await.unwrap(),
        ["127.0.0.1:81".parse::<SocketAddr>().unwrap()]
    );
    for host in ["127.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "localhost", "x.localhost."] {
        let answer = guard(&[]).resolve(&url(&format!("http://{host}/"))).await;
        assert!(matches!(answer, Err(EgressError::Forbidden { .. })), "{host}: {answer:?}");
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_says_so() {
    // RFC 6761 section 6.4: `.invalid` never resolves.
    let url = Url::parse("https://receiver.invalid/").unwrap();
    let error = guard(&[]).resolve(&url).await.unwrap_err();
    assert!(
        error.to_string().starts_with("callback_url's host receiver.invalid cannot be resolved: "),
        "{error}"
    );
}

#[test]
fn one_forbidden_answer_of_a_lookup_spoils_them_all() {
    let answer = |ips: &[&str]| {
        let found = ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 443));
        guard(&[]).judged(found.collect())
    };
    assert_eq!(answer(&["1.1.1.1", "2606:4700::1"]).unwrap().len(), 2);
    let error = answer(&["1.1.1.1", "10.0.0.7", "2606:4700::1"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "callback_url leads to 10.0.0.7, a private address; allow it with callbacks.allow_networks"
    );
    assert!(answer(&["1.1.1.1", "::ffff:169.254.169.254"]).is_err());
}
