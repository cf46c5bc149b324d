"""XML that somebody else has written: no document types, hence no entities, and no deep nesting."""

from typing import Any, NoReturn
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

DEPTH = 50  # elements within each other


class _Plain(TreeBuilder):
    depth = 0

    def doctype(self, *_: Any) -> NoReturn:
        raise ValueError("has a document type, which may define anything")

    def start(self, tag: Any, attrs: Any) -> Element:
        self.depth += 1
        if self.depth > DEPTH:
            raise ValueError(f"more than {DEPTH} elements within each other")
        return super().start(tag, attrs)

    def end(self, tag: str) -> Element:
        self.depth -= 1
        return super().end(tag)


def parse_xml(data: bytes) -> Element:
    """The root of a document, which is in UTF-8 whatever it says.

    Raises:
        ValueError: none, or one that is more than elements and text.
    """
    parser = XMLParser(target=_Plain())
    try:
        parser.feed(data.decode("utf-8-sig"))
        root: Element = parser.close()
    except ParseError as error:
        raise ValueError(f"no XML ({error})") from None
    return root


def text_of(element: Element, path: str) -> str:
    """The text of an element within another one.

    Raises:
        ValueError: there is none.
    """
    found = element.findtext(path)
    if found is None:
        raise ValueError(f"{element.tag}: no {path}")
    return found.strip()
