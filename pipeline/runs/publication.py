"""How a release is cited: the table ``[publication]`` of the configuration, and its words in HATS."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, ConfigDict, Field, field_validator

_DATE = r"^\d{4}-\d{2}-\d{2}$|^$"


class PublicationInfo(BaseModel):
    """Citation of a catalogue; fields that are not known are empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(default="", description="title of the catalogue")
    creators: str = Field(default="", description="authors, `Family, Given; Family, Given`")
    publisher: str = Field(default="", description="who publishes the catalogue")
    reference: str = Field(default="", description="bibcode or identifier of the paper, as arXiv:2604.00661")
    reference_url: str = Field(default="", description="address of the paper")
    acknowledgement: str = Field(default="", description="text that users of the data are asked to print")
    licence: str = Field(default="", description="licence of the data, by its SPDX name, as CC-BY-4.0")
    licence_url: str = Field(default="", description="address of the licence")
    copyright: str = Field(default="", description="owner of the data")
    doi: str = Field(default="", pattern=r"^10\.\d{4,9}/\S+$|^$", description="DOI, without its resolver")
    release_date: str = Field(default="", pattern=_DATE, description="day of the release, YYYY-MM-DD")

    @field_validator("release_date")
    @classmethod
    def _check_date(cls, day: str) -> str:
        if day:
            date.fromisoformat(day)
        return day

    @field_validator("*")
    @classmethod
    def _one_line(cls, text: str) -> str:
        return " ".join(text.split())

    @property
    def authors(self) -> list[tuple[str, str]]:
        """Family and given names of the authors; a given name is empty for a collaboration."""
        parts = [one.partition(",") for one in self.creators.split(";") if one.strip()]
        return [(family.strip(), given.strip()) for family, _, given in parts]

    def words(self) -> dict[str, str]:
        """Provenance words of HATS that are known, for properties and the footers of leaves."""
        words = {
            "obs_ack": self.acknowledgement,
            "obs_copyright": " ".join(filter(None, (self.copyright, self.licence))),
            "obs_copyright_url": self.licence_url,
            "hats_copyright": self.licence,
            "bib_reference": self.reference,
            "bib_reference_url": self.reference_url,
            "hats_creator": self.creators,
            "hats_release_date": self.release_date,
            "publisher": self.publisher,
            "doi": self.doi,
        }
        return {name: text for name, text in words.items() if text}
