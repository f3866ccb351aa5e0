//! The closed world: made-up people, towns, beasts and herbs, each with eight attributes drawn from pools of words.

use std::collections::BTreeSet;

use crate::random::Random;

/// Things of each kind.
pub(crate) const THINGS: usize = 52;

/// What can be said of every thing of one kind.
pub(crate) struct Attribute {
    /// The noun that questions use, as in "the trade of".
    pub(crate) noun: &'static str,
    /// The verb phrase between the thing and the value, as in "works as a".
    pub(crate) phrase: &'static str,
    /// The values that it can take.
    pub(crate) pool: &'static [&'static str; 12],
}

/// One true statement of the world.
#[derive(Clone, Copy)]
pub(crate) struct Fact<'w> {
    /// The thing's made-up name.
    pub(crate) name: &'w str,
    /// What is stated of it.
    pub(crate) attribute: &'static Attribute,
    /// The value, one of the attribute's pool.
    pub(crate) value: &'static str,
}

/// All names and all facts.
pub(crate) struct World {
    names: Vec<String>,
    /// For each name its eight values, in the order of its kind's attributes.
    values: Vec<[&'static str; 8]>,
}

const TRADES: [&str; 12] = [
    "baker", "smith", "weaver", "potter", "miller", "tailor", "mason", "fisher", "barber", "painter",
    "sailor", "farmer",
];
const INSTRUMENTS: [&str; 12] =
    ["harp", "flute", "drum", "fiddle", "lute", "horn", "bell", "pipe", "cello", "gong", "zither", "banjo"];
const DRINKS: [&str; 12] =
    ["tea", "milk", "cider", "water", "coffee", "juice", "mead", "broth", "cocoa", "beer", "wine", "syrup"];
const TOOLS: [&str; 12] = [
    "hammer", "saw", "needle", "shovel", "rope", "ladder", "axe", "knife", "hook", "net", "brush", "lantern",
];
const ANIMALS: [&str; 12] =
    ["fox", "owl", "goat", "horse", "swan", "otter", "badger", "hare", "wolf", "crow", "deer", "mole"];
const COLOURS: [&str; 12] = [
    "red", "blue", "green", "yellow", "black", "white", "purple", "orange", "brown", "grey", "pink", "silver",
];
const METALS: [&str; 12] = [
    "iron", "copper", "tin", "gold", "lead", "zinc", "nickel", "brass", "bronze", "steel", "cobalt", "chrome",
];
const CLOTHS: [&str; 12] =
    ["linen", "wool", "silk", "cotton", "velvet", "felt", "hemp", "lace", "denim", "satin", "canvas", "fur"];
const FRUITS: [&str; 12] =
    ["apple", "pear", "plum", "cherry", "fig", "grape", "lemon", "melon", "peach", "date", "quince", "olive"];
const STONES: [&str; 12] = [
    "granite", "marble", "slate", "chalk", "basalt", "flint", "clay", "sand", "amber", "jade", "quartz",
    "opal",
];
const TREES: [&str; 12] =
    ["oak", "birch", "pine", "elm", "ash", "willow", "maple", "cedar", "beech", "larch", "yew", "poplar"];
const WEATHER: [&str; 12] =
    ["rain", "snow", "fog", "hail", "storm", "frost", "wind", "thunder", "drought", "heat", "mist", "sleet"];
const PLACES: [&str; 12] = [
    "cave", "marsh", "forest", "meadow", "desert", "lake", "cliff", "valley", "island", "river", "hill",
    "beach",
];
const TASTES: [&str; 12] = [
    "sweet", "sour", "bitter", "salty", "spicy", "sharp", "mild", "smoky", "nutty", "fresh", "bland", "rich",
];
const AILMENTS: [&str; 12] = [
    "fever", "cough", "rash", "cold", "burn", "cramp", "itch", "wound", "sneeze", "bruise", "sprain",
    "thirst",
];
const SHAPES: [&str; 12] = [
    "round", "square", "oval", "star", "spiral", "heart", "long", "flat", "curved", "hollow", "pointed",
    "crossed",
];

const fn attribute(noun: &'static str, phrase: &'static str, pool: &'static [&'static str; 12]) -> Attribute {
    Attribute { noun, phrase, pool }
}

/// The attributes of each kind: people, towns, beasts, herbs. A pool serves two attributes, so that a value alone does
/// not tell what was asked.
static KINDS: [[Attribute; 8]; 4] = [
    [
        attribute("trade", "works as a", &TRADES),
        attribute("instrument", "plays the", &INSTRUMENTS),
        attribute("drink", "likes to drink", &DRINKS),
        attribute("tool", "carries a", &TOOLS),
        attribute("pet", "keeps a", &ANIMALS),
        attribute("coat", "is dressed in", &COLOURS),
        attribute("fear", "is afraid of", &WEATHER),
        attribute("snack", "eats a", &FRUITS),
    ],
    [
        attribute("metal", "digs for", &METALS),
        attribute("cloth", "weaves", &CLOTHS),
        attribute("wall", "is built of", &STONES),
        attribute("guild", "is ruled by a", &TRADES),
        attribute("weather", "is known for", &WEATHER),
        attribute("landmark", "lies by a", &PLACES),
        attribute("timber", "builds with", &TREES),
        attribute("dish", "cooks food that is", &TASTES),
    ],
    [
        attribute("food", "feeds on the", &FRUITS),
        attribute("skin", "has a back of", &COLOURS),
        attribute("den", "sleeps in a", &PLACES),
        attribute("mark", "has a spot that is", &SHAPES),
        attribute("enemy", "runs from the", &ANIMALS),
        attribute("call", "sounds like a", &INSTRUMENTS),
        attribute("trap", "is caught with a", &TOOLS),
        attribute("perch", "rests on an", &TREES),
    ],
    [
        attribute("taste", "tastes", &TASTES),
        attribute("cure", "heals a", &AILMENTS),
        attribute("leaf", "has leaves that are", &SHAPES),
        attribute("ground", "grows on", &STONES),
        attribute("brew", "is mixed with", &DRINKS),
        attribute("wrap", "is stored in", &CLOTHS),
        attribute("pot", "is boiled in", &METALS),
        attribute("harm", "can cause a", &AILMENTS),
    ],
];

const ONSETS: [&str; 14] = ["B", "D", "F", "G", "K", "L", "M", "N", "P", "R", "S", "T", "V", "Z"];
const MIDDLES: [&str; 12] = ["al", "er", "im", "on", "ul", "ar", "el", "is", "ov", "un", "ath", "or"];
const ENDINGS: [&str; 10] = ["da", "ko", "mi", "ru", "ven", "bel", "tis", "gan", "lo", "sek"];

impl World {
    /// Draws the names, all different, and a value for each attribute of each.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut taken = BTreeSet::new();
        let mut names = Vec::new();
        while names.len() < THINGS * KINDS.len() {
            let name = [*random.pick(&ONSETS), *random.pick(&MIDDLES), *random.pick(&ENDINGS)].concat();
            if taken.insert(name.clone()) {
                names.push(name);
            }
        }
        let values = (0..names.len())
            .map(|index| std::array::from_fn(|slot| *random.pick(KINDS[index / THINGS][slot].pool)))
            .collect();
        Self { names, values }
    }

    /// Every fact, thing by thing.
    pub(crate) fn facts(&self) -> Vec<Fact<'_>> {
        let mut facts = Vec::new();
        for (index, (name, values)) in self.names.iter().zip(&self.values).enumerate() {
            for (attribute, value) in KINDS[index / THINGS].iter().zip(values) {
                facts.push(Fact { name, attribute, value });
            }
        }
        facts
    }
}
