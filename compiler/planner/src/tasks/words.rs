//! The words that keys and values are made of: common nouns, rare in running text, most of them one token. No word is in
//! two lists, and no name of people.

#[rustfmt::skip]
pub(super) const EVALUATION: [&str; 223] = [
    "actor", "airport", "amber", "apple", "arrow", "asteroid", "attic", "avenue", "backpack", "baker",
    "balloon", "banana", "barn", "basement", "bathtub", "beach", "bean", "beer", "belt", "bicycle",
    "bishop", "blanket", "boiler", "boot", "bowl", "bread", "bridge", "bronze", "brush", "buffalo",
    "butcher", "cabbage", "cabinet", "cake", "camel", "campfire", "candy", "canyon", "carp", "carrot",
    "cave", "ceiling", "cement", "cherry", "chestnut", "chimney", "circus", "cliff", "cobalt", "coffee",
    "comet", "compass", "cotton", "crab", "crater", "creek", "cricket", "curry", "cycling", "deer",
    "desert", "dolphin", "donkey", "drawer", "duck", "eagle", "elephant", "embryo", "envelope", "fabric",
    "farmer", "fence", "fern", "festival", "football", "fountain", "frog", "galaxy", "garlic", "ginger",
    "glacier", "goat", "goose", "granite", "gravel", "hammer", "harness", "helium", "herring", "hockey",
    "hotel", "indigo", "island", "jeans", "juice", "kangaroo", "kidney", "kiwi", "ladder", "lake", "lamp",
    "laser", "leather", "leopard", "lily", "linen", "lizard", "lodge", "lung", "magazine", "mango",
    "marble", "mattress", "medal", "mineral", "molecule", "monkey", "mosquito", "motor", "mule", "muscle",
    "mushroom", "nail", "neuron", "nitrogen", "nylon", "ocean", "olive", "orange", "orchid", "oven",
    "oyster", "painter", "panda", "papaya", "parrot", "pasta", "pear", "pencil", "pepper", "perfume",
    "piano", "pillar", "pilot", "pirate", "pizza", "plasma", "plate", "plywood", "poker", "pony", "poster",
    "prairie", "pumpkin", "puzzle", "quartz", "radiator", "raft", "rainbow", "razor", "rhino", "rice",
    "river", "rocket", "rowing", "rugby", "saddle", "sailor", "salmon", "sausage", "scissors", "sculptor",
    "shark", "shelf", "shield", "shovel", "sidewalk", "singer", "skeleton", "skirt", "snake", "soccer",
    "soup", "speaker", "spider", "sponge", "spur", "squid", "stadium", "statue", "stomach", "subway",
    "sulfur", "sunset", "surgeon", "syrup", "taxi", "tennis", "ticket", "timber", "toad", "torch", "towel",
    "traffic", "trophy", "truck", "tundra", "turbine", "umbrella", "valley", "vampire", "velvet",
    "vineyard", "violet", "volcano", "wallet", "wasp", "wheat", "whiskey", "wolf", "worm", "yogurt", "zinc",
];

#[rustfmt::skip]
pub(super) const CALIBRATION: [&str; 223] = [
    "airplane", "algebra", "aluminum", "anchor", "arch", "asphalt", "atom", "avocado", "bacon", "balcony",
    "bamboo", "barley", "baseball", "basket", "battery", "beacon", "beaver", "beetle", "berry", "biology",
    "bison", "blender", "bottle", "boxing", "brick", "broccoli", "broom", "bucket", "butter", "cabin",
    "cactus", "calculus", "camera", "candle", "canoe", "carbon", "carpet", "cartoon", "cedar", "celery",
    "cheese", "chess", "chicken", "cinnamon", "clam", "closet", "coconut", "comb", "comic", "copper",
    "couch", "cradle", "cream", "crib", "crystal", "curtain", "dancer", "dentist", "diamond", "doll",
    "dome", "dragon", "drill", "dwarf", "eclipse", "elevator", "engine", "enzyme", "falcon", "faucet",
    "fencing", "ferry", "flute", "fossil", "fridge", "furnace", "garage", "geometry", "giraffe", "glove",
    "golf", "gorilla", "grape", "guitar", "harbor", "harp", "helmet", "highway", "honey", "hydrogen",
    "iron", "jacket", "jelly", "jungle", "kettle", "kite", "knife", "lagoon", "lamb", "lantern", "lavender",
    "lemon", "lettuce", "lime", "liver", "lobster", "luggage", "mackerel", "magnet", "marathon", "marker",
    "meadow", "meteor", "mirror", "mole", "monk", "moose", "moss", "mouse", "mummy", "museum", "mustard",
    "needle", "nickel", "notebook", "oats", "octopus", "onion", "orchard", "organ", "oxygen", "paddle",
    "painting", "pants", "parade", "passport", "peach", "pearl", "penguin", "perch", "physics", "pigeon",
    "pillow", "pine", "piston", "planet", "plastic", "plum", "pocket", "pond", "popcorn", "potato",
    "protein", "puppet", "pyramid", "quilt", "rabbit", "radio", "railway", "rake", "reef", "ribbon",
    "robot", "roof", "rubber", "ruler", "sail", "salad", "sandwich", "scarlet", "screw", "shampoo", "sheep",
    "sheriff", "shirt", "shrimp", "silk", "skating", "skiing", "snail", "soap", "soda", "sparrow", "spear",
    "spinach", "spoon", "squash", "squirrel", "stamp", "steak", "stove", "sugar", "sunrise", "surfing",
    "swamp", "tailor", "temple", "theater", "tiger", "titanium", "tomato", "tornado", "tractor", "trailer",
    "trout", "tuna", "tunnel", "turkey", "uranium", "valve", "vanilla", "vinegar", "vinyl", "violin",
    "wagon", "walnut", "whale", "whip", "willow", "wool", "wrench", "zebra", "zombie",
];

#[rustfmt::skip]
pub(super) const CHOICE: [&str; 80] = [
    "almond", "apron", "bagel", "barrel", "beetroot", "bellows", "biscuit", "blouse", "bonnet", "bracelet",
    "bugle", "cannon", "caramel", "caravan", "castle", "cello", "chalk", "chapel", "cigar", "clarinet",
    "cloak", "clover", "cobweb", "collar", "coral", "cork", "cottage", "crane", "crayon", "cucumber",
    "cushion", "dagger", "daisy", "dungeon", "ebony", "emerald", "fiddle", "flannel", "fudge", "goblet",
    "hatchet", "hazel", "heron", "ivory", "jasmine", "kennel", "lilac", "lobby", "locket", "mandolin", "maple",
    "marigold", "mitten", "nutmeg", "oboe", "opal", "otter", "pebble", "pelican", "pistachio", "plank",
    "poppy", "porridge", "quiver", "raven", "rhubarb", "saffron", "satchel", "sickle", "slate", "stork",
    "teapot", "thimble", "thistle", "trumpet", "tulip", "turnip", "walrus", "wicker", "yarn",
];

/// What stands before a noun of [`EVALUATION`] in a key.
#[rustfmt::skip]
pub(super) const ADJECTIVES: [&str; 24] = [
    "brisk", "calm", "clever", "dusty", "eager", "fancy", "gentle", "hollow", "humble", "jolly", "keen",
    "lively", "mellow", "nimble", "polite", "quaint", "rusty", "shiny", "silent", "sturdy", "tidy", "vivid",
    "witty", "zesty",
];

/// People: first names and family names.
pub(super) type Names = ([&'static str; 12], [&'static str; 16]);

#[rustfmt::skip]
pub(super) const CALIBRATION_NAMES: Names = (
    ["Agnes", "Bruno", "Clara", "Dmitri", "Esther", "Felix", "Greta", "Hector", "Ingrid", "Jonas", "Kirsten", "Lionel"],
    ["Abernathy", "Brandt", "Castellan", "Dupont", "Eriksen", "Fairweather", "Gallardo", "Hathaway", "Ivanov",
     "Jankowski", "Kowalski", "Lindqvist", "Moreau", "Nakamura", "Okafor", "Petrov"],
);

#[rustfmt::skip]
pub(super) const CHOICE_NAMES: Names = (
    ["Amelia", "Bertram", "Cecily", "Desmond", "Eloise", "Fergus", "Gwendolyn", "Humphrey", "Imogen", "Jasper", "Leonora", "Mortimer"],
    ["Ashdown", "Blackwood", "Calloway", "Davenport", "Ellsworth", "Fothergill", "Goodwin", "Holloway", "Ingram",
     "Kingsley", "Lockhart", "Merriweather", "Northcott", "Osgood", "Pemberton", "Ravenhill"],
);

#[rustfmt::skip]
pub(super) const REPORT_NAMES: Names = (
    ["Aditi", "Bashir", "Chiara", "Diego", "Elif", "Farid", "Giulia", "Hiroshi", "Ines", "Jamal", "Katya", "Luca"],
    ["Achterberg", "Bianchi", "Chaudhry", "Delacroix", "Eriksson", "Fernandez", "Grimaldi", "Haddad", "Ishikawa",
     "Jimenez", "Khalil", "Laurent", "Mahmoud", "Novak", "Oyelaran", "Papadakis"],
);
