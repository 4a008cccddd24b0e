"""Citation of a release: CITATION.cff, DataCite JSON, and a card for its readers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ojala.catalogs_schema.contract import Contract
from ojala.pipeline.release.manifest import ReleaseManifest
from ojala.pipeline.release.samples import SAMPLES
from ojala.pipeline.runs.publication import PublicationInfo

UNKNOWN = "(:unav)"
"""What DataCite writes for a value that is not known yet."""


def citation_files(
    manifest: ReleaseManifest, about: PublicationInfo, contracts: Mapping[str, Contract], code: str
) -> dict[str, bytes]:
    """Files that say how a release is cited, by name.

    Parameters
    ----------
    manifest : ReleaseManifest
        Content of the release.
    about : PublicationInfo
        Authors, licence and references, as far as they are known.
    contracts : mapping of str to Contract
        Contract of each product.
    code : str
        Version of the program that made it.
    """
    title = about.title or f"{', '.join(contracts[name].title for name in manifest.products)}"
    samples = {sample.name: sample.description for sample in SAMPLES}
    environment = Environment(
        loader=PackageLoader("ojala.pipeline.release", "."),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    card = environment.get_template("card.md.j2").render(
        manifest=manifest, about=about, contracts=contracts, title=title, code=code, samples=samples
    )
    return {
        "CITATION.cff": _cff(manifest, about, title).encode(),
        "datacite.json": json.dumps(datacite(manifest, about, title), indent=1, ensure_ascii=False).encode(),
        "README.md": card.encode(),
    }


def datacite(manifest: ReleaseManifest, about: PublicationInfo, title: str) -> dict[str, Any]:
    """Metadata of the release in the DataCite schema 4.5; `UNKNOWN` for required entries without value."""
    found: dict[str, Any] = {
        "schemaVersion": "http://datacite.org/schema/kernel-4",
        "types": {"resourceTypeGeneral": "Dataset", "resourceType": "HATS catalogue"},
        "titles": [{"title": title}],
        "creators": [
            {"name": f"{family}, {given}", "familyName": family, "givenName": given, "nameType": "Personal"}
            if given
            else {"name": family, "nameType": "Organizational"}
            for family, given in about.authors or [(UNKNOWN, "")]
        ],
        "publisher": {"name": about.publisher or UNKNOWN},
        "publicationYear": (about.release_date or manifest.made)[:4],
        "version": manifest.name,
        "formats": ["application/vnd.apache.parquet"],
        "sizes": [f"{product.rows} rows of {name}" for name, product in manifest.products.items()],
    }
    if about.doi:
        found["doi"] = about.doi
    if about.release_date:
        found["dates"] = [{"date": about.release_date, "dateType": "Issued"}]
    if about.licence:
        rights = {"rightsIdentifier": about.licence, "rightsIdentifierScheme": "SPDX"}
        found["rightsList"] = [rights | ({"rightsUri": about.licence_url} if about.licence_url else {})]
    if about.reference_url:
        found["relatedIdentifiers"] = [
            {
                "relatedIdentifier": about.reference_url,
                "relatedIdentifierType": "URL",
                "relationType": "IsDescribedBy",
            }
        ]
    return found


def _cff(manifest: ReleaseManifest, about: PublicationInfo, title: str) -> str:
    """CITATION.cff; strings as JSON, which YAML reads."""

    def text(value: str) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = [
        "cff-version: 1.2.0",
        f"message: {text('If you use this catalogue, cite it and the paper that describes it.')}",
        "type: dataset",
        f"title: {text(title)}",
        f"version: {text(manifest.name)}",
        "authors:",
    ]
    for family, given in about.authors or [(about.publisher or UNKNOWN, "")]:
        lines.append(
            f"  - {{family-names: {text(family)}, given-names: {text(given)}}}"
            if given
            else f"  - {{name: {text(family)}}}"
        )
    if about.release_date:
        lines.append(f"date-released: {about.release_date}")
    lines += [
        f"{key}: {text(value)}"
        for key, value in (("license", about.licence), ("doi", about.doi), ("url", about.reference_url))
        if value
    ]
    return "\n".join(lines) + "\n"
