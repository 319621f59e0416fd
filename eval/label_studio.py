"""A sample as a project of Label Studio: the tasks to import, and the labelling configuration.

The tasks are the rows of one sheet, with its hidden repeats and gold items. Each task carries the item_id by
which the store knows it, and nothing else that says where a caption comes from. Pictures are data: URLs, so
that nothing needs to be served.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from io import BytesIO
from xml.sax.saxutils import quoteattr

from PIL import Image, ImageDraw

from .items import Sample, SheetRow
from .questions import CANNOT_JUDGE, COLUMNS, PICTURE, QUESTIONS, Question

CONFIGURATION = "labelling.xml"


def tasks(sample: Sample, rows: list[SheetRow], picture_of: Callable[[int], str | None]) -> Iterator[str]:
    """The tasks as pieces of JSON. `picture_of` gives the JPEG of an item as base64, or None."""
    columns = caption_columns(sample)
    for i, row in enumerate(rows):
        data = {"sample": sample.sample_id, "number": row.position, "item_id": row.item_id}
        data |= dict(zip(columns, sample.captions_of(row), strict=True))
        picture = picture_of(row.item)
        data[PICTURE] = f"data:image/jpeg;base64,{picture}" if picture else _no_picture()
        yield ("," if i else "[") + "\n" + json.dumps({"data": data})
    yield "\n]\n"


def configuration(sample: Sample) -> str:
    """The labelling configuration: the questions of the sheet, with the same answers."""
    captions = caption_columns(sample)
    shown = "".join(
        f'    <Text name="{column}_shown" value="${column}"/>\n'
        if len(captions) == 1
        else f'    <Header value="{side}" size="5"/>\n    <Text name="{column}_shown" value="${column}"/>\n'
        for column, side in zip(captions, ("First", "Second"), strict=False)
    )
    key, questions = 1, ""
    for question in QUESTIONS[sample.kind]:
        questions += _choices(question, key)
        key += len(question.answers)
    return f"""<!-- captioner, sample {sample.sample_id} -->
<View style="display: flex; gap: 24px">
  <View style="flex: 1 1 55%">
    <Image name="shown" value="${PICTURE}"/>
  </View>
  <View style="flex: 1 1 45%">
{shown}{questions}    <Header value="Comment (optional)" size="5"/>
    <TextArea name="comment" toName="shown" maxSubmissions="1" editable="true" rows="2" required="false"/>
  </View>
</View>
"""


def caption_columns(sample: Sample) -> list[str]:
    """The columns of a sheet in which captions stand."""
    return [column for column in COLUMNS[sample.kind] if column.endswith("caption")]


def _choices(question: Question, key: int) -> str:
    answers = "".join(
        f'      <Choice value="{answer}" hotkey="{i}" hint={quoteattr(hint)}/>\n'
        for i, (answer, hint) in enumerate(question.answers.items(), key)
    )
    return f"""    <Header value={quoteattr(question.text)} size="5"/>
    <Choices name="{question.name}" toName="shown" choice="single-radio" showInline="true" required="true">
{answers}      <Choice value="{CANNOT_JUDGE}"/>
    </Choices>
"""


def _no_picture() -> str:
    """A picture that says that there is none: Label Studio takes no task without one."""
    picture, file = Image.new("1", (420, 60), 1), BytesIO()
    words = f"There is no picture to show. Please choose: {CANNOT_JUDGE}"
    ImageDraw.Draw(picture).text((10, 24), words, fill=0)
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
