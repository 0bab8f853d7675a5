"""What can be known of a station before a pass from its file alone: nothing is started or asked for it."""

from drivers.transport.addresses import after_scheme
from groundstation.acquisition.space import bytes_needed
from groundstation.acquisition.two_taggers import SECOND_INPUTS_FROM_BIT, common_signal, split_settings
from groundstation.cli.loading import load_driver
from groundstation.cli.planning import PlannedPass
from groundstation.config import StationConfig
from groundstation.errors import BadInput
from groundstation.operation.following import CANNOT_FOLLOW

#: At such an address a second connection is a link of its own.
_SEVERAL_CLIENTS = ("tcp", "http")


def check_mount(config: StationConfig) -> None:
    """The mount can follow a satellite, and its guard does not depend on the link that it guards. Raises BadInput."""
    entry = config.instruments["mount"]
    if not load_driver("mount", entry).DRIVER.follows:
        raise BadInput(f'[instruments.mount] names the driver "{entry.driver}"; {CANNOT_FOLLOW}')
    if entry.simulate or entry.address.partition(":")[0] in _SEVERAL_CLIENTS:
        return
    serial = entry.address.startswith("serial:")
    if not entry.guard_address or (serial and after_scheme(entry.guard_address) == after_scheme(entry.address)):
        raise BadInput(
            "[instruments.mount] has no second link for the guard, which stops the mount when this program dies; "
            'connect its second port and set guard_address = "serial://PATH"'
        )


def check_channels(config: StationConfig) -> None:
    """Every channel is plugged into inputs that there are, all of one tagger. Raises BadInput."""
    first, second = config.instruments["tagger"], config.instruments.get("tagger_2")
    inputs = load_driver("tagger", first).DRIVER.inputs
    reachable, has = [range(1, inputs + 1)], f"{first.driver} has inputs 1 to {inputs}"
    if second is not None:
        common, _ = split_settings(second.settings)
        common_signal(common, config.patterns())
        more = min(load_driver("tagger_2", second).DRIVER.inputs, SECOND_INPUTS_FROM_BIT)
        own, last = SECOND_INPUTS_FROM_BIT, SECOND_INPUTS_FROM_BIT + more
        reachable = [range(1, own + 1), range(own + 1, last + 1)]
        has = f"the first tagger has inputs 1 to {own}, the second {own + 1} to {last}, and a channel is at one of them"
    for name, channel in config.channels.items():
        if not any(set(channel.inputs) <= set(inputs_of_one) for inputs_of_one in reachable):
            raise BadInput(
                f"[channels] {name} is plugged into inputs {', '.join(map(str, channel.inputs))}, but {has}; plug it "
                "in elsewhere" + ("" if second else ", or add a second tagger as [instruments.tagger_2]")
            )


def space_needed(config: StationConfig, planned: PlannedPass) -> float:
    """Bytes that must be free before the pass is flown."""
    duration_s = (planned.stop_utc_ns - planned.start_utc_ns) * 1e-9
    return bytes_needed(config.recording.max_rate_hz, duration_s, config.recording.space_factor)
