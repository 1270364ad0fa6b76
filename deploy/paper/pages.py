"""From a view and the records to its page, whatever its kind."""

from deploy.paper.figures import parts_figure, resolutions_figure, stages_figure
from deploy.paper.page import Page
from deploy.paper.records import Found
from deploy.paper.tables import devices_table, networks_table
from deploy.paper.views import View


def make_page(view: View, found: Found, everywhere: Found) -> Page:
    """A view of the records of one setting; of Table 5, of all of them."""
    match view.kind:
        case "table" | "latency":
            page = networks_table(view, found)
        case "devices":
            page = devices_table(view, everywhere)
        case "parts":
            page = parts_figure(view)
        case "stages":
            page = stages_figure(view, found)
        case "resolutions":
            page = resolutions_figure(view, found)
    page.remarks[:0] = view.remarks
    return page
