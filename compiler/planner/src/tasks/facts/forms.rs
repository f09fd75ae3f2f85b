//! The wording of the facts, by set and kind. No wording, no kind of keys and no carrier sentence is in two sets.

use super::super::Random;
use super::{FactKind, Set};

/// How a fact is told and asked for. `{key}` and `{value}` stand for its key and its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) kind: FactKind,
    /// What its keys are.
    pub(super) keys: Keys,
    /// The line before the facts of a table or of code.
    pub(super) head: &'static str,
    /// What leads to a fact in a chain: its key stands as the value.
    pub(super) link: &'static str,
    /// Tells a fact.
    pub(super) carrier: &'static str,
    /// The question, where it is a turn of a conversation.
    pub(super) ask: &'static str,
    /// How the answer begins, without the space before the value.
    pub(super) begun: &'static str,
}

/// The kind of keys. Each belongs to one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// A noun.
    Nouns,
    /// A family name.
    Families,
    /// An adjective and a noun.
    Compounds,
}

/// What stands before the text in a conversation.
pub(super) const fn intro(set: Set) -> &'static str {
    match set {
        Set::Calibration => "Read this text with care. Questions about it follow.",
        Set::Choice => "Here is a long text. You will answer a question about it.",
        Set::Report => "Keep the details of the following pages in mind.",
    }
}

/// The forms of a set: for every kind two.
pub(super) const fn of(set: Set) -> &'static [Form] {
    match set {
        Set::Calibration => &CALIBRATION,
        Set::Choice => &CHOICE,
        Set::Report => &REPORT,
    }
}

/// A sentence of a set, about nouns.
pub(super) fn sentence(
    set: Set,
    nouns: &mut dyn Iterator<Item = &'static str>,
    random: &mut Random,
) -> String {
    let mut noun = || nouns.next().unwrap_or("thing");
    let (a, b) = (noun(), noun());
    let [first, second]: [fn(&str, &str) -> String; 2] = match set {
        Set::Calibration => [
            |a, b| format!("no {a} was ever traded for a {b} in winter."),
            |a, b| format!("give me the {a} and I will forget the {b}."),
        ],
        Set::Choice => [
            |a, b| format!("the {a} arrived two days before the {b}."),
            |a, b| format!("whoever hid the {a} also broke the {b}."),
        ],
        Set::Report => [
            |a, b| format!("under every {a} there sleeps a {b}."),
            |a, b| format!("my uncle preferred a {a} to any {b}."),
        ],
    };
    if random.below(2) == 0 { first(a, b) } else { second(a, b) }
}

const fn calibration(kind: FactKind, carrier: &'static str, ask: &'static str, begun: &'static str) -> Form {
    Form { kind, keys: Keys::Nouns, head: "", link: "", carrier, ask, begun }
}

const fn choice(kind: FactKind, carrier: &'static str, ask: &'static str, begun: &'static str) -> Form {
    Form { keys: Keys::Families, ..calibration(kind, carrier, ask, begun) }
}

const fn report(kind: FactKind, carrier: &'static str, ask: &'static str, begun: &'static str) -> Form {
    Form { keys: Keys::Compounds, ..calibration(kind, carrier, ask, begun) }
}

const CALIBRATION: [Form; 20] = [
    calibration(
        FactKind::Number,
        "The serial number of the {key} is {value}, according to the clerk.",
        "What is the serial number of the {key}?",
        "The serial number of the {key} is",
    ),
    calibration(
        FactKind::Number,
        "In the {key} he counted {value} grains that day.",
        "How many grains did he count in the {key}?",
        "In the {key} he counted",
    ),
    calibration(
        FactKind::Uuid,
        "The file about the {key} has the identifier {value}.",
        "Which identifier has the file about the {key}?",
        "The file about the {key} has the identifier",
    ),
    calibration(
        FactKind::Uuid,
        "session {key}: opened as {value}",
        "As what was the session {key} opened?",
        "session {key}: opened as",
    ),
    calibration(
        FactKind::Word,
        "Behind the {key} they found nothing but {value}.",
        "What did they find behind the {key}?",
        "Behind the {key} they found nothing but",
    ),
    calibration(
        FactKind::Word,
        "The password of the {key} was changed to {value} at noon.",
        "To what was the password of the {key} changed?",
        "The password of the {key} was changed to",
    ),
    calibration(
        FactKind::Name,
        "The {key} belongs to {value}, who never speaks of it.",
        "To whom does the {key} belong?",
        "The {key} belongs to",
    ),
    calibration(
        FactKind::Name,
        "The {key} was repaired by {value} in the end.",
        "By whom was the {key} repaired?",
        "The {key} was repaired by",
    ),
    calibration(
        FactKind::Sentence,
        "On the {key} somebody had written: {value}",
        "What had somebody written on the {key}? Give the exact words.",
        "On the {key} somebody had written:",
    ),
    calibration(
        FactKind::Sentence,
        "When asked about the {key}, the witness said: {value}",
        "What did the witness say when asked about the {key}? Quote it.",
        "When asked about the {key}, the witness said:",
    ),
    Form {
        head: "| part | weight |\n|---|---|",
        ..calibration(
            FactKind::Table,
            "| {key} | {value} |",
            "Which weight does the table give for the part {key}?",
            "| {key} |",
        )
    },
    Form {
        head: "article; price",
        ..calibration(
            FactKind::Table,
            "{key}; {value}",
            "Which price does the list give for the article {key}?",
            "{key};",
        )
    },
    Form {
        head: "# Sizes",
        ..calibration(
            FactKind::Code,
            "{key}_size = {value}",
            "To what does the code set {key}_size?",
            "{key}_size =",
        )
    },
    Form {
        head: "defaults = {}",
        ..calibration(
            FactKind::Code,
            "defaults[\"{key}\"] = {value}",
            "Which default does the code give to {key}?",
            "defaults[\"{key}\"] =",
        )
    },
    Form {
        link: "The {key} is kept in the same hall as the {value}.",
        ..calibration(
            FactKind::Chain,
            "The hall of the {key} has the number {value}.",
            "Which number has the hall where the {key} is kept?",
            "The hall where the {key} is kept has the number",
        )
    },
    Form {
        link: "entry {key}: see {value}",
        ..calibration(
            FactKind::Chain,
            "entry {key}: page {value}",
            "On which page does one end, starting at the entry {key}?",
            "Starting at the entry {key}, one ends on page",
        )
    },
    calibration(
        FactKind::Several,
        "The {key} was exchanged for {value}.",
        "For what were these exchanged: {key}? Name all in this order.",
        "In this order, they were exchanged for",
    ),
    calibration(
        FactKind::Several,
        "Whoever asks for {key} is given {value}.",
        "What is given to those who ask for {key}? Name one for each.",
        "Those who ask for {key} are given",
    ),
    calibration(
        FactKind::Turns,
        "The {key} was made in a series of {value} pieces.",
        "How many pieces did the series of the {key} have?",
        "The series of the {key} had this many pieces:",
    ),
    calibration(
        FactKind::Turns,
        "Phone number for the {key}: {value}.",
        "And the phone number for the {key}?",
        "Phone number for the {key}:",
    ),
];

const CHOICE: [Form; 20] = [
    choice(
        FactKind::Number,
        "For the house {key} paid {value} crowns.",
        "How many crowns did {key} pay for the house?",
        "For the house {key} paid",
    ),
    choice(
        FactKind::Number,
        "Prisoner {key} wears the figure {value}.",
        "Which figure does prisoner {key} wear?",
        "Prisoner {key} wears the figure",
    ),
    choice(
        FactKind::Uuid,
        "To enter, {key} types the token {value}.",
        "Which token does {key} type to enter?",
        "To enter, {key} types the token",
    ),
    choice(FactKind::Uuid, "user {key} uid {value}", "Which uid has the user {key}?", "user {key} uid"),
    choice(
        FactKind::Word,
        "At the fair {key} won a prize, namely {value}.",
        "Which prize did {key} win at the fair?",
        "At the fair {key} won a prize, namely",
    ),
    choice(
        FactKind::Word,
        "{key} is known to the guards by the word {value}.",
        "By which word do the guards know {key}?",
        "{key} is known to the guards by the word",
    ),
    choice(
        FactKind::Name,
        "In spring {key} married {value}.",
        "Whom did {key} marry in spring?",
        "In spring {key} married",
    ),
    choice(
        FactKind::Name,
        "The lawyer of {key} is called {value}.",
        "How is the lawyer of {key} called?",
        "The lawyer of {key} is called",
    ),
    choice(
        FactKind::Sentence,
        "The last telegram of {key} reads: {value}",
        "How does the last telegram of {key} read?",
        "The last telegram of {key} reads:",
    ),
    choice(
        FactKind::Sentence,
        "{key} likes to repeat: {value}",
        "What does {key} like to repeat?",
        "{key} likes to repeat:",
    ),
    Form {
        head: "Name, points",
        ..choice(FactKind::Table, "{key}, {value}", "How many points are listed for {key}?", "{key},")
    },
    Form {
        head: "pupil | mark",
        ..choice(FactKind::Table, "{key} | {value}", "What is the mark of the pupil {key}?", "{key} |")
    },
    Form {
        head: "switch (user) {",
        ..choice(
            FactKind::Code,
            "case \"{key}\": return {value};",
            "What does the switch return for {key}?",
            "case \"{key}\": return",
        )
    },
    Form {
        head: "// limits by user",
        ..choice(
            FactKind::Code,
            "const LIMIT_{key}: u32 = {value};",
            "Which value has the constant LIMIT_{key}?",
            "const LIMIT_{key}: u32 =",
        )
    },
    Form {
        link: "{key} lives next door to {value}.",
        ..choice(
            FactKind::Chain,
            "The street door of {key} bears {value}.",
            "What does the street door next to that of {key} bear?",
            "The street door next to that of {key} bears",
        )
    },
    Form {
        link: "{key} reports to {value}.",
        ..choice(
            FactKind::Chain,
            "{key} sits in office {value}.",
            "In which office does the one sit to whom {key} reports?",
            "The one to whom {key} reports sits in office",
        )
    },
    choice(
        FactKind::Several,
        "{key} brought {value} to the feast.",
        "What did {key} bring to the feast? Say it one by one.",
        "One by one, they brought",
    ),
    choice(
        FactKind::Several,
        "From the will {key} received {value}.",
        "What did {key} receive from the will, respectively?",
        "From the will {key} received respectively",
    ),
    choice(
        FactKind::Turns,
        "{key} was born as child {value} of the register.",
        "Which child of the register was {key}?",
        "In the register {key} is child",
    ),
    choice(
        FactKind::Turns,
        "The account of {key} ends in {value}.",
        "What does the account of {key} end in?",
        "The account of {key} ends in",
    ),
];

const REPORT: [Form; 20] = [
    report(
        FactKind::Number,
        "The distance to {key} was measured again: {value} feet.",
        "How many feet is it to {key} by the new measurement?",
        "By the new measurement, the feet to {key} are",
    ),
    report(
        FactKind::Number,
        "Vessel {key} is registered under {value}.",
        "Under which registration does vessel {key} run?",
        "Vessel {key} is registered under",
    ),
    report(
        FactKind::Uuid,
        "The parcel labelled {key} carries the tracking code {value}.",
        "Which tracking code does the parcel labelled {key} carry?",
        "The parcel labelled {key} carries the tracking code",
    ),
    report(
        FactKind::Uuid,
        "device {key} has key {value}",
        "Give the key of device {key}.",
        "device {key} has key",
    ),
    report(
        FactKind::Word,
        "Project {key} needs one more thing: {value}.",
        "Which thing does project {key} still need?",
        "Project {key} needs one more thing:",
    ),
    report(
        FactKind::Word,
        "In our secret language {key} means {value}.",
        "What does {key} mean in our secret language?",
        "In our secret language {key} means",
    ),
    report(
        FactKind::Name,
        "The captain of {key} has the name {value}.",
        "Who is the captain of {key}?",
        "The captain of {key} has the name",
    ),
    report(
        FactKind::Name,
        "Operation {key} was led by {value}.",
        "Who led operation {key}?",
        "Operation {key} was led by",
    ),
    report(
        FactKind::Sentence,
        "The motto of {key} goes: {value}",
        "How does the motto of {key} go, in full?",
        "The motto of {key} goes:",
    ),
    report(
        FactKind::Sentence,
        "Above the gate of {key} one can read: {value}",
        "What can one read above the gate of {key}?",
        "Above the gate of {key} one can read:",
    ),
    Form {
        head: "site / depth",
        ..report(FactKind::Table, "{key} / {value}", "Which depth is given for the site {key}?", "{key} /")
    },
    Form {
        head: "Harvest by field:",
        ..report(
            FactKind::Table,
            "- {key}: {value}",
            "How large was the harvest of the field {key}?",
            "- {key}:",
        )
    },
    Form {
        head: "let mut ports = Map::new();",
        ..report(
            FactKind::Code,
            "ports.insert(\"{key}\", {value});",
            "Which port is inserted for {key}?",
            "ports.insert(\"{key}\",",
        )
    },
    Form {
        head: "[timeouts]",
        ..report(
            FactKind::Code,
            "\"{key}.ms\" = {value}",
            "Which timeout in ms is configured for {key}?",
            "\"{key}.ms\" =",
        )
    },
    Form {
        link: "Station {key} has the same gauge as station {value}.",
        ..report(
            FactKind::Chain,
            "The gauge of station {key} shows {value}.",
            "What does the gauge of station {key} show?",
            "Hence the gauge of station {key} shows",
        )
    },
    Form {
        link: "{key} is another name of {value}.",
        ..report(
            FactKind::Chain,
            "{key} lies at a height of {value}.",
            "At which height does the place lie that is also named {key}?",
            "The place also named {key} lies at a height of",
        )
    },
    report(
        FactKind::Several,
        "The emblem of {key} shows {value}.",
        "What do the emblems of {key} show, each in turn?",
        "Each in turn, the emblems show",
    ),
    report(
        FactKind::Several,
        "At {key} travellers are offered {value}.",
        "What is offered to travellers at {key}? List it in order.",
        "In order, travellers at {key} are offered",
    ),
    report(
        FactKind::Turns,
        "The archive of {key} holds {value} letters.",
        "How many letters are held by the archive of {key}?",
        "The archive of {key} holds",
    ),
    report(
        FactKind::Turns,
        "Locker {key} opens with {value}.",
        "With what does locker {key} open?",
        "Locker {key} opens with",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::values::list;
    use super::super::super::{formats, synthetic, words};
    use super::*;

    /// Everything that a set shows a model but for keys, values and running text.
    fn shown(set: Set) -> Vec<&'static str> {
        let of = |form: &Form| [form.carrier, form.link, form.head, form.ask, form.begun];
        let mut all: Vec<&str> = self::of(set).iter().flat_map(of).filter(|text| !text.is_empty()).collect();
        all.push(intro(set));
        match set {
            Set::Calibration => all.extend(formats::shown(super::super::super::Split::Calibration)),
            Set::Choice => {}
            Set::Report => {
                all.extend(formats::shown(super::super::super::Split::Evaluation));
                all.extend(synthetic::shown());
            }
        }
        all
    }

    /// What a model finds a value by: the words before it.
    fn before(text: &str) -> String {
        text.split("{value}").next().unwrap_or_default().trim().to_owned()
    }

    #[test]
    fn the_sets_share_no_wording_no_keys_and_no_carrier() {
        for (a, b) in
            [(Set::Calibration, Set::Choice), (Set::Calibration, Set::Report), (Set::Choice, Set::Report)]
        {
            for (x, y) in shown(a).iter().flat_map(|x| shown(b).into_iter().map(move |y| (*x, y))) {
                // Two formats may both put the bare key before the value: no words are shared.
                let same = before(x) == before(y) && before(x) != "{key}";
                assert!(x != y && !same, "{} and {}: {x:?} and {y:?}", a.name(), b.name());
            }
            let kinds = |set| of(set).iter().map(|form| format!("{:?}", form.keys)).collect::<BTreeSet<_>>();
            assert!(kinds(a).len() == 1 && kinds(a).is_disjoint(&kinds(b)));
            let words = |set: Set| {
                let (first, family) = set.names();
                set.nouns().iter().chain(first).chain(family).copied().collect::<BTreeSet<_>>()
            };
            assert!(words(a).is_disjoint(&words(b)));
            let sentence = |set| {
                let sentence =
                    |seed| super::sentence(set, &mut ["x", "y"].into_iter(), &mut Random::new(seed, &[]));
                (0..20).map(sentence).collect::<BTreeSet<String>>()
            };
            assert!(sentence(a).len() == 2 && sentence(a).is_disjoint(&sentence(b)));
        }
    }

    #[test]
    fn every_kind_has_two_forms_in_every_set() {
        for set in Set::ALL {
            for kind in FactKind::ALL {
                assert_eq!(
                    of(set).iter().filter(|form| form.kind == kind).count(),
                    2,
                    "{kind} {}",
                    set.name()
                );
            }
            for form in of(set) {
                let has = |text: &str, place: &str| text.matches(place).count() == 1;
                assert!(has(form.carrier, "{key}") && has(form.carrier, "{value}"), "{}", form.carrier);
                assert_eq!(!form.link.is_empty(), form.kind == FactKind::Chain, "{}", form.link);
                assert!(form.begun == form.begun.trim() && !form.begun.contains("{value}"), "{}", form.begun);
                assert!(has(form.ask, "{key}") && !form.ask.contains("{value}"), "{}", form.ask);
            }
        }
    }

    #[test]
    fn nouns_are_whole_and_in_no_wording() {
        let all = || Set::ALL.into_iter().flat_map(|set| set.nouns().iter().copied());
        assert_eq!(all().collect::<BTreeSet<_>>().len(), all().count());
        for (a, b) in words::CHOICE.iter().flat_map(|a| words::CHOICE.iter().map(move |b| (a, b))) {
            assert!(a == b || !a.contains(b), "{a} contains {b}");
        }
        for (adjective, noun) in words::ADJECTIVES.iter().flat_map(|a| all().map(move |noun| (*a, noun))) {
            assert!(!adjective.contains(noun) && !noun.contains(adjective), "{adjective} and {noun}");
        }
        for text in Set::ALL.into_iter().flat_map(shown) {
            for word in text.split(|c: char| !c.is_alphabetic()) {
                assert!(!all().any(|noun| noun == word), "{word}: {text}");
            }
        }
    }

    #[test]
    fn lists_are_as_people_say_them() {
        assert_eq!([list(["a"]), list(["a", "b"]), list(["a", "b", "c"])], ["a", "a and b", "a, b and c"]);
        assert_eq!(list([]), "");
    }
}
