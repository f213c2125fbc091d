r"""The words by which a reply says what a number is: the patterns of the parser, each with what it stands for.

Conventions: a pattern reads the skeleton of a reply (`numbers`), in which `#` is a number in digits, `@` one in words
and `·` one that is no number of the count; `N` below is `#` or `@`. Every pattern is possessive or bounded, so that the
time is linear in the length of the reply.

Source: the measurement specification, section 3.
"""

import re

N = "[#@]"
# A number that a statement announces: not that of a point of a list, as in "Let's count them:\n1. Top left".
_STATED = r"(?P<n>(?:(?<!\n)|(?!.[.)]\s+[^\W\d]))[#@])"

# Parts of patterns.
_ABOUT = r"(?:(?:about|exactly|approximately|around|roughly|nearly|almost|only|just)\s++)?+"
_DOT = r"(?:dots?|circles?|spots?|points?|dis[ck]s?|balls?|blobs?)\b"
_ADJECTIVES = (
    r"(?:(?:black|white|red|blue|green|gr[ae]y|dark|visible|solid|filled|round|small|little|tiny|large|big|distinct|separate"
    r"|individual|total|different|identical|similar|isolated),?\s++){0,3}+"
)
_DOTS = rf"[ \t]*+{_ADJECTIVES}{_DOT}"
_PARTS = r"(?:rows?|columns?|lines?|groups?|clusters?|times|colou?rs?|corners?)\b"
_SHAPED = r"(?:(?:horizontal|vertical|diagonal|equal|full|main|larger?|smaller?|different|distinct|separate)\s++)?+"
_OTHERS = (
    r"(?:images?|pictures?|photos?|quadrants?|sections?|sides?|degrees?|percent|pixels?|seconds?|minutes?|years?)\b"
)
_PLACES = (
    r"(?:first|second|third|fourth|fifth|last|next|top|bottom|left|right|upper|lower|middle|cent(?:er|re)|corners?|edges?"
    r"|other|outer|inner|outside|inside|row|column|line)\b"
)
# What may stand between the words that announce a number and the number.
_FILLER = (
    r"(?:\s|[:=\"'(→>~,]|(?:there|here|are|is|be|it|this|that|which|makes?|gives?|us|we|you|i|have|has|get|see|count|counted"
    r"|find|found|the|a|an|my|our|final|answer|result|number|total|sum|image|picture|figure|contains?|shows?|of|equals?|to"
    r"|comes|would|should|must|dots?|circles?|in|all|black|visible|about|exactly|approximately|around|roughly|nearly|almost"
    r"|only|just|s|[’]s|as|\\(?:text|mathbf)\{)(?![a-z]))*+"
)
_TERM = rf"{N}(?:\s++(?!(?:is|which|that|makes?|gives?|equals)\b)[a-z]++){{0,3}}+(?:\s*+\([^()#@]{{0,40}}+\))?+"
_OPERANDS = rf"(?<![+×/÷])(?<![+×/÷]\s){_TERM}(?:\s*+[+×/÷]\s*+{_TERM})++"

LABEL = re.compile(
    rf"\b(?:image|figure|fig\.?|picture|photo|step|row|column|line|group)(?:\s*+(?:(?:number|no\.)\s*+)?{N}"
    rf"|s\s++{N}(?:\s*+(?:[-–]|to\b|and\b|&)\s*+{N})?)(?!{_DOTS})"
)
"""The number of an image or a row. It is a count after all where the reply has no other number."""

NO_COUNTS = {
    name: re.compile(pattern)
    for name, pattern in {
        "a position": rf"[(\[]\s*+{N}\s*+,\s*+{N}\s*+[)\]]|\b[xy]\d?\s*+[=:]\s*+\"?{N}",
        "how many parts": rf"{N}[ \t]*+-?{_SHAPED}{_PARTS}(?!\s++of\s++{_ABOUT}{N})",
        "how many of what is no dot": rf"{N}[ \t]++{_OTHERS}",
        "denied": rf"(?<!\bif )(?:\bnot|n['’]t|\binstead of|\brather than)\s++{_ABOUT}{N}",
        "in each": rf"{N}(?:{_DOTS})?+[ \t]*+(?:per\b|(?:(?:in|for|on)\s++)?+(?:each|every)\b)",
        "each has": (
            rf"\b(?:each|every|per)\b(?!\s++of\s++the\s++{N})(?:\s++(?!(?:so|thus|total)\b)[a-z]++){{0,4}}+\s*+:?\s*+{N}"
        ),
        "a margin": rf"\b(?:off by|within)\s++{N}",
        "operands of a result": (
            rf"{_OPERANDS}(?=\s*+(?:=|,?\s*+(?:which|that)?+\s*+(?:is|makes?|gives?|equals)\b)\s*+{_FILLER}{N})"
        ),
    }.items()
}
"""Numbers that are none of the count, wherever they stand."""

RANGE = re.compile(
    rf"\bbetween\s++{N}\s++and\s++{N}|{N}(?:{_DOTS})?+\s*+(?:±|\+/-|plus or minus\b|give or take\b)\s*+{N}"
    rf"|{N}(?:{_DOTS})?+(?:\s*+\(?(?:[-‐‑–—−~]|to\b|,?\s*+(?:or|maybe|perhaps|possibly)\b)\s*+"
    rf"(?:(?:maybe|perhaps|possibly|even)\s++)?+{_ABOUT}{N})++"
)
"""Several counts at once."""

BOUND = re.compile(
    r"(?:\b(?:at least|at most|(?:more|less|fewer|greater|higher|lower) than|over|under|above|below|up to|exceeds"
    rf"|(?:min|max)imum of)|(?<![-=])[<>≤≥])\s*+{N}|{N}(?:{_DOTS})?+\s++or\s++(?:more|less|fewer|so)\b"
)
"""A count that is not to be exceeded, or not to be fallen short of."""

UNSAID = (
    re.compile(rf"{N}[ \t]*+-?{_SHAPED}{_PARTS}\s++of\s++{_ABOUT}{N}"),
    re.compile(
        rf"{N}(?:{_DOTS})?+\s++(?:in|on|at)\s++(?:the|its)\s++(?:{_PLACES}|upper|lower)\s++"
        r"(?:rows?|columns?|lines?|half|groups?|parts?|quadrant|clusters?|one)\b"
    ),
    re.compile(_OPERANDS),
)
"""Numbers of which none is the count: rows of dots, dots of one row, and operands without a result."""

_SAYS_IT = rf"(?:(?:is|are|equals|would be)\b|[:=]){_FILLER}{_STATED}"

ANSWERED = re.compile(
    rf"\\boxed\s*+\{{{_FILLER}(?P<boxed>{N})|\banswer(?:\s++to\b[^#@·.:\n]{{0,60}}?)?[\"'\s)]*+{_SAYS_IT}"
)
"""A box, or an answer by this name."""

_OF_ALL = rf"(?!(?:\s++[a-z]++){{0,7}}?\s++(?:{_PARTS}|steps?\b|shapes?\b|each\b|{_PLACES}))"
COUNTED = re.compile(
    r"(?<!row )(?<!column )(?<!line )(?<!group )"
    r"\b(?:(?P<total>total[a-z]*+)|[a-z]{0,12}?count|num(?:ber)?(?:of)?(?:dots)?)\b"
    rf"{_OF_ALL}(?:\s++[a-z]++){{0,8}}?[\"'\s]*+{_SAYS_IT}"
)
"""A count, a number or a total by this name, of all that is there."""

CORRECTED = re.compile(r"\b(?:wait|sorry|actually|rather(?! than)|i mean|correction|no,|no it\b|no that\b|no there\b)")
"""What comes after it stands, and what came before it does not."""

FIRST_LINE = re.compile(
    rf"[-~•≈\s]*+{_ABOUT}(?P<n>{N})(?:{_DOTS})?+(?:\s*+\([^()#@\n]{{0,40}}+\))?+[ \t]*+[.!]?[ \t]*+\n"
)
"""A number alone, and an explanation below it."""

CONCLUDED = re.compile(
    rf"(?:\b(?:so|thus|therefore|hence|altogether|overall|in total|total)\b|=){_FILLER}{_STATED}"
    rf"|(?P<m>{N})(?:{_DOTS})?+[\s,(]*+(?:in\s++(?:total|all)|altogether|overall|total)\b"
)
"""What follows, or the sum."""

BRACKETS = re.compile(r"\([^()]*+\)|\[[^\[\]]*+\]")
LEADING = re.compile(rf"[^\w#@]*+(?P<n>{N})")
"""A number that a reply begins with."""

DOTS = re.compile(rf"(?<!\bof )(?P<n>{N}){_DOTS}(?!\s++(?:in|on|at|along|near|to)\s++(?:(?:the|its)\s++)?+{_PLACES})")
"""A number of dots, and not those of a part of the image."""
ANY_DOTS = re.compile(rf"(?P<n>{N}){_DOTS}")

JOINT = re.compile(r"\b(?:and|or)\b|[,;+×/÷]")
SENTENCE_END = re.compile(r"[.!?\n]")
"""Between two numbers: `JOINT` joins them where no sentence ends."""

LISTED = re.compile(r"[\s,;.…\-–→>]*+(?:and|dots?)?\s*+")
"""Between the numbers of an enumeration: 1, 2, 3."""
POINTS = re.compile(r"[^#@]*?(?:\n\s*+(?:[-•]\s*+)?|\b(?:dot|circle)\s++)")
"""Between the numbers of the points of a list: 1. Top left 2. ..."""

DIGITS_APART = re.compile(r"#(?:\s++#)++")
DIGITS_LISTED = re.compile(r"[^\w#]*+#(?:[\s,;/-]++(?:(?:and|then)\s++)?+#){1,3}[^\w#]*+")
DIGITS_NAMED = re.compile(
    r"\b(?:units?|ones)\b[^#@·]{0,24}(?P<units>#)[^#@·]{1,24}?\btens?\b[^#@·]{0,24}(?P<tens>#)"
    r"|\btens?\b[^#@·]{0,24}(?P<first_tens>#)[^#@·]{1,24}?\b(?:units?|ones)\b[^#@·]{0,24}(?P<last_units>#)"
)
"""A number digit by digit."""

ASKED = re.compile(r"\n[ \t]*+(?:question|q|user|human)\s*+:")
"""Where a model without an end goes on with a question of its own."""

REFUSED = re.compile(r"\b(?:sorry|cannot|can not|can[’']t|could not|couldn[’']t|unable|not able|impossible)\b")
