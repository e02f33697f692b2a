"""English for the prompts of this analysis: real cities and people with what is known of them, and invented ones.

How well known an entity is, is a judgement and no count; every list begins with what more people know. Invented names are
put together of syllables and are checked against the real ones; that no real person or city bears one cannot be promised.
"""

from __future__ import annotations

__all__ = ["ALSO_KNOWN_FOR", "CITIES", "FIRST", "INVENTED_ENDS", "INVENTED_STARTS", "PEOPLE", "PEOPLE_ENDS", "PEOPLE_STARTS", "PREFACES", "QUESTIONS", "SYNONYMS"]  # fmt: skip

CITIES: dict[str, str] = {
    "frequent": """
    Paris:France London:England Berlin:Germany Rome:Italy Madrid:Spain Tokyo:Japan Beijing:China Moscow:Russia
    Toronto:Canada Sydney:Australia Mumbai:India Cairo:Egypt Athens:Greece Dublin:Ireland Vienna:Austria Warsaw:Poland
    Stockholm:Sweden Oslo:Norway Lisbon:Portugal Istanbul:Turkey Amsterdam:Netherlands Brussels:Belgium
    Copenhagen:Denmark Helsinki:Finland Budapest:Hungary Barcelona:Spain Munich:Germany Milan:Italy Venice:Italy
    Shanghai:China Melbourne:Australia Vancouver:Canada Tehran:Iran Baghdad:Iraq Kiev:Ukraine Manchester:England
    """,
    "middle": """
    Lyon:France Marseille:France Bordeaux:France Hamburg:Germany Cologne:Germany Frankfurt:Germany Naples:Italy
    Turin:Italy Florence:Italy Seville:Spain Valencia:Spain Osaka:Japan Kyoto:Japan Nagoya:Japan Montreal:Canada
    Calgary:Canada Ottawa:Canada Brisbane:Australia Perth:Australia Chennai:India Kolkata:India Bangalore:India
    Lahore:Pakistan Karachi:Pakistan Krakow:Poland Gothenburg:Sweden Bergen:Norway Porto:Portugal Ankara:Turkey
    Izmir:Turkey Rotterdam:Netherlands Antwerp:Belgium Salzburg:Austria Cork:Ireland Guangzhou:China Leeds:England
    """,
    "rare": """
    Limoges:France Amiens:France Dijon:France Kassel:Germany Bremen:Germany Augsburg:Germany Bari:Italy Perugia:Italy
    Modena:Italy Murcia:Spain Burgos:Spain Sendai:Japan Sapporo:Japan Kumamoto:Japan Regina:Canada Saskatoon:Canada
    Moncton:Canada Ballarat:Australia Cairns:Australia Nagpur:India Indore:India Mysore:India Multan:Pakistan
    Peshawar:Pakistan Lublin:Poland Poznan:Poland Malmo:Sweden Uppsala:Sweden Trondheim:Norway Braga:Portugal
    Bursa:Turkey Konya:Turkey Utrecht:Netherlands Ghent:Belgium Linz:Austria Preston:England
    """,
}
"""Cities and their countries."""

PEOPLE: dict[str, str] = {
    "frequent": """
    Albert Einstein:physics/Isaac Newton:physics/Marie Curie:physics/Stephen Hawking:physics/Wolfgang Mozart:music/
    Michael Jackson:music/Bob Dylan:music/John Lennon:music/Pablo Picasso:painting/Claude Monet:painting/
    Salvador Dali:painting/Michael Jordan:basketball/Kobe Bryant:basketball/Lionel Messi:football/David Beckham:football/
    Cristiano Ronaldo:football/Charles Darwin:biology/Serena Williams:tennis/Roger Federer:tennis/Louis Pasteur:biology
    """,
    "middle": """
    Niels Bohr:physics/Richard Feynman:physics/Max Planck:physics/Enrico Fermi:physics/Franz Schubert:music/
    Joseph Haydn:music/Miles Davis:music/Joni Mitchell:music/Paul Gauguin:painting/Henri Matisse:painting/
    Edvard Munch:painting/Larry Bird:basketball/Magic Johnson:basketball/Zinedine Zidane:football/Wayne Rooney:football/
    Diego Maradona:football/Gregor Mendel:biology/Andre Agassi:tennis/Pete Sampras:tennis/James Watson:biology
    """,
    "rare": """
    Wolfgang Pauli:physics/Paul Dirac:physics/Lise Meitner:physics/Hans Bethe:physics/Clara Schumann:music/
    Erik Satie:music/Arvo Part:music/Anton Bruckner:music/Georges Seurat:painting/Camille Pissarro:painting/
    Paul Klee:painting/Moses Malone:basketball/Rick Barry:basketball/Paolo Maldini:football/Roger Milla:football/
    Gerd Muller:football/Ernst Mayr:biology/Mats Wilander:tennis/Ivan Lendl:tennis/Barbara McClintock:biology
    """,
}
"""People and the field for which they are known."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "England": ("Britain", "UK"),
    "Netherlands": ("Holland",),
    "football": ("soccer",),
    "music": ("composing", "songs"),
    "painting": ("art", "paintings"),
}
"""Other words for an answer, which are as right."""

ALSO_KNOWN_FOR: dict[str, tuple[str, ...]] = {
    "Albert Einstein": ("relativity", "science"),
    "Isaac Newton": ("gravity", "mathematics", "science"),
    "Marie Curie": ("chemistry", "science"),
    "Stephen Hawking": ("cosmology", "science"),
    "Charles Darwin": ("evolution", "science"),
    "Louis Pasteur": ("chemistry", "medicine", "science"),
    "Gregor Mendel": ("genetics", "science"),
    "James Watson": ("genetics", "DNA", "science"),
    "Paul Dirac": ("mathematics",),
    "Ernst Mayr": ("evolution",),
    "Barbara McClintock": ("genetics",),
}
"""What else may be said of a person, and is right."""

INVENTED_STARTS: tuple[str, ...] = ("Brev", "Drol", "Fenk", "Grom", "Jorv", "Kelb", "Lurv", "Morv", "Nesk", "Plov", "Quend", "Rusp", "Selv", "Tarv", "Vond", "Wesk", "Yelm", "Zarv")  # fmt: skip
INVENTED_ENDS: tuple[str, ...] = ("ista", "omir", "unda", "eth", "aluz", "ingor", "ova", "edo", "aris", "untel")
"""Invented cities: a start and an end."""

FIRST: tuple[str, ...] = ("Albert", "Clara", "Henry", "Julia", "Martin", "Rosa", "Simon", "Helen", "Victor", "Emma", "Oscar", "Laura")  # fmt: skip
PEOPLE_STARTS: tuple[str, ...] = ("Brel", "Drost", "Fenw", "Gorl", "Hask", "Jund", "Kroll", "Larb", "Mund", "Norb", "Pelk", "Sturm", "Tolv", "Verl", "Wint")  # fmt: skip
PEOPLE_ENDS: tuple[str, ...] = ("hoven", "ister", "acker", "onby", "elius", "umov", "etti", "arsky")
"""Invented people: a real first name, and a surname of a start and an end."""

QUESTIONS: dict[str, tuple[str, str]] = {
    "country": (
        "Question: In which country is the city of {name}?\nAnswer:",
        "City: {name}\nCountry:",
    ),
    "field": (
        "Question: For what is {name} known?\nAnswer:",
        "Person: {name}\nField:",
    ),
}
"""Attribute to two ways of asking for it."""

PREFACES: dict[str, tuple[str, str]] = {
    "country": (
        "Question: In which country is the city of Geneva?\nAnswer: Switzerland\n"
        "Question: In which country is the city of Blivnak?\nAnswer: unknown\n"
        "Question: In which country is the city of Otrumel?\nAnswer: unknown\n"
        "Question: In which country is the city of Lima?\nAnswer: Peru\n",
        "City: Bogota\nCountry: Colombia\nCity: Chelvurna\nCountry: unknown\n"
        "City: Hanoi\nCountry: Vietnam\nCity: Sporlitz\nCountry: unknown\n",
    ),
    "field": (
        "Question: For what is William Shakespeare known?\nAnswer: poetry\n"
        "Question: For what is Theodor Blankvist known?\nAnswer: unknown\n"
        "Question: For what is Agnes Morrelby known?\nAnswer: unknown\n"
        "Question: For what is Garry Kasparov known?\nAnswer: chess\n",
        "Person: Bobby Fischer\nField: chess\nPerson: Edgar Strovan\nField: unknown\n"
        "Person: John Keats\nField: poetry\nPerson: Ingrid Hallowin\nField: unknown\n",
    ),
}
"""Examples that stand before a question: half of them are declined, and no answer of theirs is one of the probe."""
