//! The status page in a browser.

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::daemon::{Client, Daemon, field};
use crate::support::needs::Need;

/// Drops the findings that depend on the machine, such as its buffer limits and its load.
const ON_ANY_MACHINE: &str = r#"{
    const { addEventListener } = EventSource.prototype;
    EventSource.prototype.addEventListener = function (type, listener) {
        addEventListener.call(this, type, (event) => {
            if (type !== "status") return listener(event);
            const status = JSON.parse(event.data);
            status.findings = status.findings.filter(({ id }) => id === "clients_near_cap");
            listener(new MessageEvent(type, { data: JSON.stringify(status) }));
        });
    };
}"#;

/// Lists the accessibility problems of the page.
const BARRIERS: &str = r#"(() => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    const found = [];
    const expect = (holds, what) => { if (!holds) found.push(what); };
    const isSeen = (node) => node.getClientRects().length && !node.closest(".unseen");

    expect(document.documentElement.lang === "en", "language");
    for (const one of ["h1", "main", "[role=status]"]) expect(all(one).length === 1, one);
    all("h1, h2, h3, h4, h5, h6").reduce((above, { tagName, textContent }) => {
        expect(tagName[1] <= above + 1 && textContent.trim(), `heading ${textContent}`);
        return +tagName[1];
    }, 0);
    all("table").filter(isSeen).forEach((table) => {
        expect(table.caption?.textContent.trim(), `caption of ${table.id}`);
        table.querySelectorAll("th").forEach((head) => expect(head.scope, `scope of ${head.textContent}`));
    });
    all("svg").forEach((svg) => expect(svg.ariaLabel && svg.getAttribute("role") === "img", "words for a plot"));
    all("input, meter").forEach((node) => expect(node.ariaLabel || node.labels?.length, `label of ${node.id}`));
    all("section").forEach((section) =>
        expect(document.getElementById(section.getAttribute("aria-labelledby")), "title of a section"));
    expect(document.documentElement.scrollWidth <= innerWidth, `${document.documentElement.scrollWidth} wide`);

    const light = (color) => color.match(/[\d.]+/g).slice(0, 3)
        .map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
    const paper = light(getComputedStyle(document.body).backgroundColor);
    all("body *").filter((node) => isSeen(node) && [...node.childNodes].some((child) =>
        child.nodeType === Node.TEXT_NODE && child.data.trim())).forEach((node) => {
        const ink = light(getComputedStyle(node).color);
        const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
        expect(contrast >= 4.5, `contrast ${contrast.toFixed(2)} of ${node.textContent}`);
    });
    return found;
})()"#;

/// Whether the line of a plot begins at the first sample, on an axis that is at most a minute longer.
const SHOWS_ALL_OF_A_YOUNG_DAEMON: &str = r#"(() => {
    const age = samples.at(-1).time - samples[0].time;
    const begin = +document.querySelector(".line").getAttribute("d").match(/^M([\d.]+)/)[1];
    const shown = document.getElementById("sheet-title").textContent;
    const minutes = shown === "The last minute" ? 1 : +shown.match(/^The last (\d+) minutes$/)[1];
    return minutes * 60 < age + 60 + 1 && Math.abs(begin - 600 * (1 - age / (minutes * 60))) < 1;
})()"#;

fn browser() -> Browser {
    let mut browser = Browser::start();
    let script = json!({ "source": ON_ANY_MACHINE });
    browser.call("Page.addScriptToEvaluateOnNewDocument", &script);
    browser
}

/// The URL of a daemon's page.
fn page(daemon: &Daemon) -> String {
    let line = daemon.wait_for_line("listening for HTTP");
    let port = field(&line, "address").rsplit(':').next().unwrap();
    format!("http://127.0.0.1:{port}/")
}

fn clients(daemon: &Daemon, count: usize) -> Vec<Client> {
    let clients: Vec<_> = (0..count).map(|_| Client::of(daemon)).collect();
    for client in &clients {
        client.heartbeat(&[]);
    }
    daemon.wait_for_lines("registered", count);
    clients
}

/// Whether the page contains this text, with all whitespace normalized.
fn says(text: &str) -> String {
    format!(r"document.body.innerText.replace(/\s+/g, ' ').includes({})", json!(text))
}

fn headline(text: &str) -> String {
    format!("document.getElementById('headline').textContent.trim() === {}", json!(text))
}

/// Whether the plot with this title shows this value.
fn figure(title: &str, value: &str) -> String {
    format!(
        "[...document.querySelectorAll('figure')].some((figure) => \
         figure.querySelector('h3').textContent.trim() === {} && \
         figure.querySelector('.value').textContent === {})",
        json!(title),
        json!(value)
    )
}

/// Checks accessibility in wide and narrow windows, and in light and dark mode.
fn expect_no_barriers(browser: &mut Browser) {
    for (width, scheme) in
        [(1280, "light"), (1280, "dark"), (360, "light"), (320, "light"), (320, "dark")]
    {
        browser.emulate(width, "prefers-color-scheme", scheme);
        let barriers = browser.value(BARRIERS);
        assert_eq!(barriers, json!([]), "{width} pixels, {scheme}");
    }
}

#[test]
fn the_page_shows_live_data_and_a_lost_connection() {
    require!([Need::Program("chromium")]);
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let address = page(&daemon);
    let mut browser = browser();
    browser.open(&address);
    browser.wait_until(&headline("All is well, but no client has registered yet."));
    browser.wait_until(&says(&format!("wakeupd probe {}", daemon.address)));
    browser.wait_until("document.title === '○ wakeupd: no clients'");

    let clients = clients(&daemon, 3);
    for client in &clients {
        client.ping();
    }
    browser.wait_until(&headline("All is well: 3 clients, pings on time."));
    browser.wait_until("document.title === '● wakeupd: all well'");
    for title in ["Clients live", "Pings per second"] {
        browser.wait_until(&figure(title, "3"));
    }
    browser.wait_until(&says("3 IPv4, 0 IPv6"));
    browser.wait_until(&says("127.0.0.0/24 3 "));
    browser.wait_until("document.querySelector('.line').getAttribute('d').includes('L')");
    expect_no_barriers(&mut browser);
    browser.wait_until(SHOWS_ALL_OF_A_YOUNG_DAEMON);

    // The page redraws every second, but its live region changes only with the status.
    browser.value(
        "window.spoken = 0;
         new MutationObserver(() => spoken++).observe(document.querySelector('[role=status]'),
             { childList: true, characterData: true, subtree: true });
         window.clock = document.getElementById('as-of').textContent;",
    );
    browser.wait_until("document.getElementById('as-of').textContent !== clock");
    assert_eq!(browser.value("spoken"), json!(0));

    // The keyboard can choose the moment that the figures show, too.
    browser.value("document.getElementById('moment').focus()");
    for kind in ["keyDown", "keyUp"] {
        let key =
            json!({ "type": kind, "key": "Home", "code": "Home", "windowsVirtualKeyCode": 36 });
        browser.call("Input.dispatchKeyEvent", &key);
    }
    browser.wait_until(&says("Values at"));

    assert_eq!(browser.complaints(), Vec::<String>::new());
    let others: Vec<_> =
        browser.requests().into_iter().filter(|it| !it.starts_with(&address)).collect();
    assert!(others.iter().all(|other| other.starts_with("data:image/svg+xml,")), "{others:?}");

    daemon.stop();
    browser.wait_until(
        "document.getElementById('headline').textContent.startsWith('Connection lost:')",
    );
    browser.wait_until("document.title === '✕ wakeupd: connection lost'");
    browser.wait_until("document.querySelector('[role=status]').textContent === 'connection lost'");
    expect_no_barriers(&mut browser);

    let authority = address.trim_start_matches("http://").trim_end_matches('/');
    let _next = Daemon::start(&[("HTTP_ADDR", authority)]);
    browser.wait_until(&headline("All is well, but no client has registered yet."));
}

#[test]
fn the_page_shows_findings_with_their_remedies() {
    require!([Need::Program("chromium")]);
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0"), ("MAX_CLIENTS", "4")]);
    let _clients = clients(&daemon, 4);
    let mut browser = browser();
    browser.open(&page(&daemon));
    browser.wait_until("document.title === '▲ wakeupd: 1 problem'");
    browser.wait_until(&headline("1 problem."));
    let told: Value = browser.value(
        "fetch('status').then((answer) => answer.json())
             .then(({ findings }) => findings.find(({ id }) => id === 'clients_near_cap'))",
    );
    for part in ["summary", "advice"] {
        let text = told[part].as_str().unwrap();
        browser.wait_until(&says(&text.replace('`', "")));
    }
    // A repository path would be a dead link on the page.
    assert_eq!(browser.value(&says(told["more"].as_str().unwrap())), json!(false));
    browser.wait_until("[...document.querySelectorAll('#problems li')].length === 1");
    expect_no_barriers(&mut browser);
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // A breach of the policy does cause a complaint.
    browser.value("document.body.setAttribute('style', 'color: red')");
    let complaints = browser.complaints();
    assert!(complaints.iter().any(|it| it.contains("Content Security Policy")), "{complaints:?}");
}

/// Searches for an address or a network with the page's search box.
fn find(browser: &mut Browser, wanted: &str) {
    browser.value(&format!(
        "document.getElementById('wanted').value = {};
         document.querySelector('#find-form button').click()",
        json!(wanted)
    ));
}

#[test]
fn the_page_finds_clients_and_explains_refusals() {
    require!([Need::Program("chromium")]);
    let daemon = Daemon::start(&[
        ("HTTP_ADDR", "127.0.0.1:0"),
        ("LOCAL_NETS", "none"),
        ("MAX_CLIENTS_PER_ADDRESS", "2"),
        ("REFUSE_NETS", "198.51.100.0/24"),
    ]);
    let mut clients = clients(&daemon, 2);
    // A client that has repeated its heartbeat is not evicted.
    for client in &clients {
        client.heartbeat(&[]);
    }
    let gone = clients.pop().unwrap().address();
    Client::of(&daemon).heartbeat(&[]);
    daemon.wait_for_line("max_clients_per_address");
    let mut browser = browser();
    browser.open(&page(&daemon));
    // The page explains each reason for a refusal or a mute beside its count.
    browser.wait_until(&says(
        "already has MAX_CLIENTS_PER_ADDRESS clients. If many clients are behind one NAT",
    ));
    browser.wait_until(&says("A muted client gets no pings until its next heartbeat"));

    let live = clients[0].address().to_string();
    let cap = "The source address, or its IPv6 /64, already has MAX_CLIENTS_PER_ADDRESS clients.";
    let refuse_nets = "The source address is in a network of REFUSE_NETS.";
    let remedy = "remove the network from REFUSE_NETS and restart the daemon.";
    for (wanted, outcomes) in [
        (live.as_str(), &[live.as_str(), "last heartbeat"][..]),
        ("127.0.0.0/24", &["2 clients in 127.0.0.0/24:", "muted, last heartbeat"]),
        ("127.0.0.1", &["2 clients at 127.0.0.1:"]),
        (&gone.to_string(), &["muted, last heartbeat", "ICMP port unreachable"]),
        ("127.0.0.1:1024", &["127.0.0.1:1024 is not a client. The guard refuses", cap]),
        ("198.51.100.7", &["198.51.100.7 is not a client. The guard refuses", refuse_nets, remedy]),
        ("[2001:db8::1]:53", &["The source port is below 1024."]),
        ("2001:db8::1", &["2001:db8::1 is not a client. The guard would accept it"]),
        ("203.0.113.0/24", &["No clients in 203.0.113.0/24."]),
        ("somewhere", &["is not a network"]),
    ] {
        find(&mut browser, wanted);
        for outcome in outcomes {
            browser.wait_until(&says(outcome));
        }
    }
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|it| it.contains("/clients/") || it.contains("/clients?")));
}

#[test]
fn the_page_fits_a_narrow_window_with_the_longest_values() {
    require!([Need::Program("chromium")]);
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let mut browser = browser();
    browser.open(&page(&daemon));
    browser.wait_until(&headline("All is well, but no client has registered yet."));
    browser.value(
        "source.close();
         latestStatus.address = '[2001:db8:1234:5678:9abc:def0:1234:5678]:65535';
         latestStatus.clients = { ipv4: 1e8, ipv6: 1e8, max: 2e8 };
         for (const reason in latestStatus.totals.refused) latestStatus.totals.refused[reason] = 1e12;
         Object.assign(latestStatus.totals, { heartbeats: 1e12, pings: 1e12, mutes: 1e12 });
         showTables(latestStatus);
         showPrefixes([{ prefix: '2001:db8:1234:ff00::/56', clients: 2e5, pings_per_second: 2e5, single_heartbeat_share: 0.9999 }]);
         byId('prefixes').hidden = false;
         showFound({ message: '', clients: [{ address: latestStatus.address, heartbeats: 2 ** 32, pings: 2 ** 32,
             muted: true, last_heartbeat: latestStatus.started }] });
         document.getElementById('wanted').value = latestStatus.address;",
    );
    expect_no_barriers(&mut browser);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_page_asks_for_the_token_beyond_loopback() {
    require!([Need::Program("chromium")]);
    let mut browser = browser();
    let open = Daemon::start(&[("HTTP_ADDR", "0.0.0.0:0")]);
    browser.open(&page(&open));
    browser.wait_until(&says("ADMIN_TOKEN must be set"));

    let daemon =
        Daemon::start(&[("HTTP_ADDR", "0.0.0.0:0"), ("ADMIN_TOKEN", "correct-horse-battery")]);
    let _clients = clients(&daemon, 2);
    browser.open(&page(&daemon));
    browser.wait_until(&says("Enter the ADMIN_TOKEN of the daemon"));
    expect_no_barriers(&mut browser);
    for (token, outcome) in
        [("wrong", "rejected this token"), ("correct-horse-battery", "127.0.0.0/24 2 ")]
    {
        browser.value(
            "document.getElementById('token').value = ''; document.getElementById('token').focus()",
        );
        browser.call("Input.insertText", &json!({ "text": token }));
        browser.value("document.querySelector('form button').click()");
        browser.wait_until(&says(outcome));
    }
    assert_eq!(browser.value("document.getElementById('token-form').hidden"), json!(true));
    assert_eq!(
        browser.value("[...Object.values(localStorage), document.cookie].join()"),
        json!("")
    );
}
