"""`aot compare A B`."""

from typing import Annotated

import typer

from aot_core.commands.options import DEFAULT_HOME, HomeOption, JsonOption, PlaceOption

app = typer.Typer()
CampaignArgument = Annotated[
    str, typer.Argument(help="A campaign's name, or the first digits of its key (`aot status`).")
]


@app.command()
def compare(
    first: CampaignArgument,
    second: CampaignArgument,
    as_json: JsonOption = False,
    store: PlaceOption = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Compare two campaigns' last Defenders: config, data, figures, kinds of question.

    Paired where both were asked the same questions. Example:

        aot compare 9fa0f5 d54e4d
    """
    from aot_core.commands.comparing import compare_campaigns, print_comparison
    from aot_core.commands.looking import existing_store
    from aot_core.home import Home

    place = Home(home)
    found = compare_campaigns(place, existing_store(place, store), first, second)
    print_comparison(found, as_json=as_json)
