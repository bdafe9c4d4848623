"""The demo shop's words: kinds of product, themes, and the small grammar that writes a title and a description.

A theme shows in the words alone. No word here names a colour, a pattern or a shape, so that the text says
nothing of a picture beyond the kind of product, which nobody in the shop has a taste for.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Kind(NamedTuple):
    """A kind of product: neutral as to taste, seen in the picture and named in the text."""

    name: str
    materials: tuple[str, ...]
    price: float


class Theme(NamedTuple):
    """What a text can be about: title words, and phrases that fit the slots of `write_copy`."""

    name: str
    epithets: tuple[str, ...]
    moods: tuple[str, ...]
    uses: tuple[str, ...]
    people: tuple[str, ...]
    scenes: tuple[str, ...]


@dataclass(frozen=True)
class Copy:
    """The written side of an item."""

    title: str
    description: str


KINDS = (
    Kind("lamp", ("ash wood", "brushed steel", "rattan", "paper"), 64),
    Kind("mug", ("stoneware", "enamel", "porcelain", "bone china"), 16),
    Kind("vase", ("glass", "stoneware", "porcelain", "earthenware"), 38),
    Kind("chair", ("ash wood", "beech", "bent plywood", "oak"), 145),
    Kind("clock", ("birch", "brushed steel", "bamboo", "enamel"), 49),
    Kind("backpack", ("canvas", "recycled nylon", "waxed cotton", "cordura"), 88),
    Kind("teapot", ("stoneware", "cast iron", "porcelain", "enamel"), 42),
    Kind("cushion", ("linen", "wool", "velvet", "cotton"), 29),
    Kind("planter", ("concrete", "earthenware", "fibre clay", "recycled resin"), 33),
    Kind("umbrella", ("recycled polyester", "pongee", "waxed cotton", "canvas"), 35),
    Kind("notebook", ("clothbound paper", "cotton rag paper", "stone paper", "kraft paper"), 14),
    Kind("shirt", ("jersey", "organic cotton", "hemp", "linen"), 27),
    Kind("kite", ("ripstop nylon", "bamboo", "recycled polyester", "silk"), 31),
    Kind("ukulele", ("mahogany", "acacia", "spruce", "maple"), 119),
    Kind("bottle", ("steel", "glass", "enamel", "aluminium"), 24),
    Kind("birdhouse", ("cedar", "larch", "recycled plywood", "birch"), 36),
)

THEMES = (
    Theme(
        "seaside",
        ("Tidewater", "Driftwood", "Harbour", "Saltmarsh", "Seafarer"),
        ("salt air", "slow tides", "gull song", "sea breeze", "foam and shingle"),
        ("beachcombing at low tide", "sailing weekends", "rock-pool rambles", "boat-shed tinkering"),
        ("sailors", "lighthouse keepers", "pier anglers"),
        ("a harbour wall at dawn", "the ferry coming in", "a beach hut after a storm"),
    ),
    Theme(
        "stargazing",
        ("Orion", "Nebula", "Comet", "Perihelion", "Observatory"),
        ("starlight", "deep space", "distant galaxies", "lunar quiet", "cosmic wonder"),
        ("meteor showers", "telescope nights", "tracing constellations", "eclipse parties"),
        ("astronomers", "rocket dreamers", "moon watchers"),
        ("a planetarium dome", "the first planet of the evening", "a satellite crossing the sky"),
    ),
    Theme(
        "baking",
        ("Sourdough", "Brioche", "Pantry", "Rolling-Pin", "Proofing"),
        ("warm crust", "buttered toast", "cinnamon and yeast", "oven heat", "flour dust"),
        ("kneading dough", "Sunday scones", "cake tins and batter", "trading starter with neighbours"),
        ("bakers", "pastry cooks", "biscuit lovers"),
        ("a loaf cooling on the rack", "a bakery before opening", "crumbs on the breadboard"),
    ),
    Theme(
        "jazz",
        ("Bebop", "Bluenote", "Syncopated", "Saxophone", "Swingtime"),
        ("brushed cymbals", "smoky melodies", "a walking bass", "improvised riffs", "late trumpet"),
        ("listening to vinyl", "jam sessions", "basement gigs", "learning a new solo"),
        ("drummers", "crooners", "record collectors"),
        ("a club after the second set", "a trio tuning up", "a piano with its lid open"),
    ),
    Theme(
        "hiking",
        ("Ridgeline", "Trailhead", "Summit", "Switchback", "Basecamp"),
        ("thin mountain air", "boot leather", "pine resin", "granite and scree", "alpine meadows"),
        ("crossing passes", "hut-to-hut walks", "camp stoves and maps", "bagging peaks"),
        ("hikers", "climbers", "mountain guides"),
        ("a cairn above the treeline", "a tent pitched by a tarn", "the last steep mile"),
    ),
    Theme(
        "gardening",
        ("Allotment", "Greenhouse", "Seedling", "Potting-Shed", "Hedgerow"),
        ("fresh compost", "sweet peas", "tomato vines", "damp soil", "ripening beans"),
        ("pruning roses", "sowing seeds", "harvesting courgettes", "chatting over the fence"),
        ("gardeners", "beekeepers", "orchard owners"),
        ("a wheelbarrow full of weeds", "rows of lettuce in May", "a trowel left in the border"),
    ),
    Theme(
        "detective",
        ("Gumshoe", "Alibi", "Sleuth", "Casebook", "Deadbolt"),
        ("suspicion", "unsolved riddles", "whispered clues", "locked rooms", "cold cases"),
        ("reading whodunits", "interrogating suspects", "cracking ciphers", "murder-mystery dinners"),
        ("detectives", "amateur sleuths", "crime novelists"),
        ("a body in the library", "fingerprints on the decanter", "the butler clearing his throat"),
    ),
    Theme(
        "railway",
        ("Locomotive", "Signalbox", "Sleeper-Car", "Junction", "Branchline"),
        ("steam whistles", "coal smoke", "clattering points", "polished carriages", "timetables"),
        ("trainspotting", "overnight expresses", "building model railways", "waiting on platform two"),
        ("stationmasters", "engine drivers", "commuters with stories"),
        ("a viaduct in the mist", "the guard waving a flag", "a dining carriage at dusk"),
    ),
    Theme(
        "winter",
        ("Snowdrift", "Fireside", "Frostbite", "Toboggan", "Yuletide"),
        ("crackling logs", "hot cocoa", "first snowfall", "woolly mittens", "icicles and hush"),
        ("skating on ponds", "thawing cold toes", "snowball truces", "waiting for the plough"),
        ("skiers", "knitters of mittens", "sledge racers"),
        ("a cabin under a metre of snow", "breath hanging in the air", "the stove ticking as it warms"),
    ),
    Theme(
        "wizardry",
        ("Spellbound", "Grimoire", "Alchemist", "Familiar", "Runestone"),
        ("minor magic", "dragon smoke", "ancient spells", "bubbling potions", "enchanted sleep"),
        ("brewing elixirs", "summoning courage", "consulting the oracle", "taming small dragons"),
        ("wizards", "hedge witches", "apprentice sorcerers"),
        ("a tower with too many stairs", "a cauldron left unattended", "an owl with a letter"),
    ),
    Theme(
        "cycling",
        ("Peloton", "Derailleur", "Velodrome", "Freewheel", "Tailwind"),
        ("chain oil", "spinning spokes", "long descents", "burning quads", "open tarmac"),
        ("criterium mornings", "gravel rides", "mending punctures", "coffee stops with the club"),
        ("cyclists", "couriers", "bicycle mechanics"),
        ("a sprint for the town sign", "a saddlebag stuffed with bananas", "the hairpin before the col"),
    ),
    Theme(
        "tea ceremony",
        ("Matcha", "Tatami", "Zen", "Kyoto", "Wabi"),
        ("mindful stillness", "whisked froth", "incense", "unhurried breath", "temple bells"),
        ("meditating at sunrise", "pouring sencha", "raking gravel", "writing haiku"),
        ("monks", "calligraphers", "patient hosts"),
        ("a paper screen sliding open", "a koi turning in the pond", "maple leaves on the step"),
    ),
    Theme(
        "robots",
        ("Circuit", "Android", "Servo", "Binary", "Gizmo"),
        ("humming servos", "solder fumes", "blinking diodes", "whirring gears", "tidy algorithms"),
        ("debugging at midnight", "teaching robots manners", "soldering kits", "hackathon weekends"),
        ("tinkerers", "engineers", "retired androids"),
        ("a workbench of spare motors", "a robot learning to waltz", "wires labelled at last"),
    ),
    Theme(
        "carnival",
        ("Big-Top", "Carousel", "Ringmaster", "Trapeze", "Popcorn"),
        ("candyfloss", "brass fanfares", "sawdust", "juggled torches", "applause"),
        (
            "running away with the circus",
            "tightrope practice",
            "parades down the high street",
            "clowning around",
        ),
        ("acrobats", "jugglers", "fortune tellers"),
        ("a cannon with someone in it", "the elephants at breakfast", "a ferris wheel turning empty"),
    ),
    Theme(
        "library",
        ("Bookworm", "Marginalia", "Folio", "Bibliophile", "Chapter"),
        ("old paper", "turned pages", "hushed stacks", "footnotes", "dog-eared sonnets"),
        ("reading in bed", "alphabetising shelves", "poetry evenings", "book-club debates"),
        ("librarians", "poets", "slow readers"),
        ("an overdue novel returned", "a ladder along the shelves", "the last page before sleep"),
    ),
    Theme(
        "desert",
        ("Caravan", "Mirage", "Oasis", "Sirocco", "Bedouin"),
        ("hot sand", "camel bells", "date palms", "shimmering heat", "endless dunes"),
        ("crossing the erg", "bartering at the souk", "sleeping under canvas", "sharing mint tea"),
        ("nomads", "camel drivers", "spice merchants"),
        ("a well after three days", "tracks filling behind the caravan", "a fire of acacia twigs"),
    ),
    Theme(
        "jungle",
        ("Rainforest", "Canopy", "Macaw", "Orchid", "Explorer"),
        ("monsoon rain", "tangled lianas", "chattering parrots", "humid nights", "jaguar tracks"),
        ("paddling upriver", "cataloguing beetles", "hammock naps", "swinging from vines"),
        ("explorers", "botanists", "parrot whisperers"),
        ("a rope bridge over the gorge", "a temple swallowed by roots", "a toucan stealing lunch"),
    ),
    Theme(
        "arcade",
        ("Joystick", "High-Score", "Eight-Bit", "Boss-Level", "Power-Up"),
        ("chiptune bleeps", "extra lives", "sticky buttons", "cheat codes", "button mashing"),
        ("speedruns", "couch co-op nights", "beating the final boss", "collecting every coin"),
        ("gamers", "pinball wizards", "console collectors"),
        ("the continue screen counting down", "a queue for the last cabinet", "a princess in another castle"),
    ),
    Theme(
        "farmhouse",
        ("Barnyard", "Haystack", "Dairymaid", "Orchard-Gate", "Rooster"),
        ("mown hay", "warm milk", "clucking hens", "tractor diesel", "muddy gumboots"),
        ("collecting eggs", "lambing season", "churning butter", "mending the paddock gate"),
        ("farmers", "shepherds", "cheesemakers"),
        ("a barn at milking time", "a sheepdog asleep in the straw", "the cockerel on the gatepost"),
    ),
    Theme(
        "diving",
        ("Coral", "Fathom", "Nautilus", "Abyss", "Snorkel"),
        ("bubbling regulators", "coral gardens", "whale song", "weightless drift", "kelp forests"),
        ("wreck dives", "chasing manta rays", "decompression stops", "feeding the octopus"),
        ("divers", "marine biologists", "submarine cooks"),
        ("a turtle gliding past", "a treasure chest wedged open", "plankton glowing below the keel"),
    ),
)

_BRANDS = (
    "Harrow & Finch", "Odd Sparrow", "Millbrook", "Fennimore", "Two Left Hands", "Kestrel Goods", "Ottoline",
    "Plain Jane", "Bramley", "Studio Nine", "Good Neighbour", "Papa Lindt", "Wren & Co", "Everyday Ltd",
)  # fmt: skip
_QUALITIES = (
    "sturdy", "handsome", "well-made", "generous", "light", "plain-spoken", "clever", "dependable", "pocket-friendly",
    "hard-wearing", "charming", "no-nonsense",
)  # fmt: skip
_ROOMS = ("any room", "the kitchen table", "a small flat", "your desk", "the hallway", "a shared house")
_TITLES = (
    "{epithet} {material} {kind}",
    "{epithet} {kind} by {brand}",
    "{brand} {epithet} {kind}",
    "The {epithet} {kind} in {material}",
)
_OPENINGS = (
    "A {quality} {kind} in {material}, made with {people} in mind.",
    "{Brand} made this {quality} {kind} of {material} for {people}.",
    "Ask {people} what they want and they will describe this {quality} {kind} in {material}.",
    "Our {quality} {material} {kind} is a favourite among {people}.",
)
_MOODS = (
    "It brings {mood} and {mood2} to {room}.",
    "Expect some {mood}, a hint of {mood2}, and no fuss.",
    "There is room in it for {mood}, and for {mood2} too.",
    "One look at {room} and you will think of {mood} and {mood2}.",
)
_USES = (
    "Made for {use}, and just as good for {use2}.",
    "Good company for {use} or {use2}.",
    "Takes {use} in its stride, {use2} as well.",
)
_SCENES = (
    "Think of {scene}.",
    "It puts us in mind of {scene}.",
    "Best enjoyed near {scene}.",
    "Picture {scene}.",
)
_CLOSINGS = (
    "Wipe clean with a soft cloth.", "Ships flat in recycled card.", "Guaranteed for five years.",
    "Made in small batches.", "A fine present.", "Arrives gift-wrapped on request.", "Repairable for life.",
)  # fmt: skip


def write_copy(kind: Kind, theme: Theme, rng: np.random.Generator) -> Copy:
    """Write an item's title and a description of four or five sentences."""
    mood, mood2 = rng.permutation(theme.moods)[:2]
    use, use2 = rng.permutation(theme.uses)[:2]
    brand = _pick(rng, _BRANDS)
    material = _pick(rng, kind.materials)
    words = {
        "kind": kind.name,
        "material": material,
        "brand": brand,
        "Brand": brand,
        "epithet": _pick(rng, theme.epithets),
        "people": _pick(rng, theme.people),
        "scene": _pick(rng, theme.scenes),
        "quality": _pick(rng, _QUALITIES),
        "room": _pick(rng, _ROOMS),
        "mood": mood,
        "mood2": mood2,
        "use": use,
        "use2": use2,
    }
    title = _pick(rng, _TITLES).format_map(words | {"kind": kind.name.capitalize(), "material": material.title()})
    body = [_pick(rng, _MOODS), _pick(rng, _USES), _pick(rng, _SCENES)]
    sentences = [_pick(rng, _OPENINGS), *rng.permutation(body), _pick(rng, _CLOSINGS)]
    return Copy(title, " ".join(sentences).format_map(words))


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]
