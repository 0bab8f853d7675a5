"""Links to instruments: bytes (`open_link`), HTTP (`open_http`) and messages (`open_messages`)."""

from drivers.transport.addresses import open_link
from drivers.transport.http import HttpLink, HttpReply, open_http
from drivers.transport.link import Link
from drivers.transport.messages import MessageLink, open_messages

__all__ = ["HttpLink", "HttpReply", "Link", "MessageLink", "open_http", "open_link", "open_messages"]
