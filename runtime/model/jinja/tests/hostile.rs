//! Templates that somebody made to hurt: an error within a second or so, whatever they ask for.

use std::time::{Duration, Instant};

use moac_jinja::{ErrorKind, Now, Template, Value};

fn render(source: &str) -> Result<String, ErrorKind> {
    let start = Instant::now();
    let message = Value::dict([("role", "user".into()), ("content", "hi".into())]).unwrap();
    let variables = [("messages", Value::list([message]).unwrap())];
    let result = Template::parse(source).and_then(|template| template.render(variables, Now::utc(0)));
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{}: {:?}",
        &source[..source.len().min(99)],
        start.elapsed()
    );
    result.map_err(|error| error.kind)
}

#[test]
fn templates_that_ask_for_too_much() {
    let doubling = |change: &str| {
        format!(
            "{{% set ns = namespace(x='ab', l=[1]) %}}{{% for i in range(60) %}}{change}{{% endfor %}}{{{{ ns.x | length }}}}"
        )
    };
    let mut sources: Vec<String> = [
        "{{ '{:10000000000}'.format(1) }}",
        "{{ '{:.2000000000f}'.format(1.0) }}",
        "{{ '{:99999999999999999999999}'.format(1) }}",
        "{{ '%10000000000s' % 'a' }}",
        "{{ '%.10000000000f' % 1.0 }}",
        "{{ '%.10000000000d' % 1 }}",
        "{{ '%*d' % (10000000000, 1) }}",
        "{{ [1,[2]] | tojson(indent=10000000000) }}",
        "{{ 'a' * 10000000000 }}",
        "{{ [1] * 10000000000 }}",
        "{{ 'a'.center(10000000000) }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ 'a'.zfill(10000000000) }}",
        "{{ '\\t'.expandtabs(10000000000) }}",
        "{{ 'a' | center(10000000000) }}",
        "{{ 'a\\nb' | indent(10000000000) }}",
        "{{ [1] | batch(10000000000, 'x') | list }}",
        "{{ [1] | slice(10000000000) | list }}",
        "{{ ('a' * 1000000).replace('a', 'a' * 1000000) }}",
        "{{ ('a' * 1000000) | replace('', 'a' * 1000000) }}",
        "{{ (['a'] * 1000000) | join('a' * 1000000) }}",
        "{{ 2 ** 10000000000 }}",
        "{{ range(100000000000) }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(50000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x={}) %}{% for i in range(50000) %}{% set ns.x = {1: ns.x} %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=()) %}{% for i in range(50000) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x=[], y=[]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
        "{% set ns = namespace(x=()) %}{% for i in range(90) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
        "{% set n = namespace() %}{% set n.x = n %}{{ n }}",
        "{% set n = namespace() %}{% set n.x = [n, n] %}{{ n }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(x) %}{{ x(x) }}{% endmacro %}{{ m(m) }}",
        "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}",
        "{% for x in [[]] recursive %}{{ loop([[]]) }}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in 'x' * 60000000 %}{% endfor %}",
        "{% for a in range(99999) %}{% set x = 'a' * 100000 %}{% endfor %}",
        "{% set ns = namespace(s='') %}{% for a in range(99999) %}{% set ns.s = ns.s + 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' %}{% endfor %}",
        "{% set s = 'a' * 30000 %}{% for a in range(99999) %}{{ s in s }}{% endfor %}",
        "{% set s = ('a' * 30000) %}{% for a in range(99999) %}{{ s.find('b') }}{% endfor %}",
        "{% set s = range(50000) | list %}{% for a in range(99999) %}{{ 'x' in s }}{% endfor %}",
        "{% set s = range(50000) | list %}{% for a in range(99999) %}{{ s == s }}{% endfor %}",
        "{% set s = range(50000) | list %}{% for a in range(99999) %}{% set t = s | sort %}{% endfor %}",
        "{{ strftime_now('%c' * 5000000) }}",
        "{{ strftime_now('%c' * 10000000) | length }}",
    ]
    .map(str::to_owned)
    .into();
    sources.extend([
        doubling("{% set ns.x = ns.x + ns.x %}"),
        doubling("{% set ns.x = ns.x ~ ns.x %}"),
        doubling("{% set ns.x = ns.x * 2 %}"),
        doubling("{% set ns.x = ns.x | replace('a', 'aa') %}"),
        doubling("{% set ns.x = '%s%s' | format(ns.x, ns.x) %}"),
        doubling("{% set ns.x = '{0}{0}'.format(ns.x) %}"),
        doubling("{% set ns.x = [ns.x, ns.x] | join %}"),
        doubling("{% set ns.x = ns.x.join([ns.x, ns.x]) %}"),
        doubling("{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
        doubling("{% set ns.l = ns.l + ns.l %}{% set ns.x = ns.l %}"),
        format!("{{{{ {} 1 }}}}", "not ".repeat(30_000)),
        format!("{{{{ {} 1 }}}}", "-".repeat(30_000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(30_000), ")".repeat(30_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(30_000), "]".repeat(30_000)),
        format!("{{{{ {}1{} }}}}", "{1:".repeat(30_000), "}".repeat(30_000)),
        format!("{{{{ 1{} }}}}", " + 1".repeat(30_000)),
        format!("{{{{ 1{} }}}}", " ** 1".repeat(30_000)),
        format!("{{{{ 1{} }}}}", " or 0".repeat(30_000)),
        format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(30_000)),
        format!("{{{{ 1{} }}}}", " if 1".repeat(30_000)),
        format!("{{{{ 1{} }}}}", " | abs".repeat(30_000)),
        format!("{{{{ messages{} }}}}", ".x".repeat(30_000)),
        format!("{{{{ messages{} }}}}", "[0]".repeat(30_000)),
        format!("{{{{ messages{} }}}}", "()".repeat(30_000)),
        format!("{{{{ 1{} }}}}", " is odd".repeat(30_000)),
        "{% if 1 %}".repeat(30_000),
        "{% for x in y %}".repeat(30_000),
        format!("{{% set {}x{} = 1 %}}", "(".repeat(30_000), ")".repeat(30_000)),
        "x".repeat(2 << 20),
    ]);
    for source in &sources {
        let shown = &source[..source.len().min(120)];
        match render(source) {
            Err(_) => {}
            Ok(text) => assert!(text.len() < 200, "{shown}: {} bytes", text.len()),
        }
    }
    // Some are quick to answer, and their answer is right.
    assert_eq!(render("{% set n = namespace() %}{% set n.x = n %}{{ n.x.x.x is defined }}").unwrap(), "True");
    assert_eq!(render("{% set n = namespace() %}{% set n.x = n %}{{ {n: 1}[n] }}").unwrap(), "1");
}

#[test]
fn depth_and_work_that_real_templates_need_is_there() {
    let sum = format!("{{{{ 'a'{} }}}}", " + 'a'".repeat(100));
    assert_eq!(render(&sum).unwrap().len(), 101);
    let elif = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(500));
    assert_eq!(render(&elif).unwrap(), "");
    let nested = format!("{}x{}", "{% if 1 %}".repeat(40), "{% endif %}".repeat(40));
    assert_eq!(render(&nested).unwrap(), "x");
    let recursive = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% else %}x{% endif %}{% endmacro %}{{ m(40) }}";
    assert_eq!(render(recursive).unwrap(), "x");
    let work = "{% for i in range(20000) %}{% if i % 2 == 0 and i > 5 %}{{ i }}{% endif %}{% endfor %}";
    assert!(render(work).unwrap().len() > 40_000);
}

#[test]
fn a_loop_that_ends_within_a_macro_is_an_error() {
    for inner in ["macro m()", "call m()"] {
        let source = format!("{{% for a in b %}}{{% {inner} %}}{{% endfor %}}");
        assert!(matches!(render(&source), Err(ErrorKind::Syntax(_))), "{source}");
    }
}
