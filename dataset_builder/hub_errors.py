"""What the client of the Hub says of a failure, fit to be shown."""


def message_of(error: BaseException | str, *, token: str | bool | None = None) -> str:
    """What an error says, on one line, with the token that is in use left out.

    Args:
        error: What the client raised, or the server said.
        token: The token of the client; the one of this user's login where it is not text.
    """
    from huggingface_hub import get_token

    token = token if isinstance(token, str) else get_token()
    message = " ".join(str(error).split())
    # Headers are shown with escapes where the token has characters that cannot be printed.
    for form in (token, repr(token)[1:-1]) if token else ():
        message = message.replace(form, "***")
    return message
