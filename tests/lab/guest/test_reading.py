"""Reading the guest's console: whole logs, logs of several boots, and logs that are cut off."""

from tests.lab.guest.reading import GpuReport, Outcome, Summary, SwitchReport, read_console

# As captured: two GPUs and a switch; the button on the first boot, a warning and the agent on the second.
FIRST_BOOT = """
GUEST booted boots=1 vcpus=2 memory_mib=64
GUEST pci 00:03.0 1234:11e8 class=00ff00 kind=gpu ident=010000ed compute=ok dma=ok
GUEST pci 03:01.0 1234:11e8 class=00ff00 kind=gpu ident=010000ed compute=ok dma=ok
GUEST pci 03:02.0 1b36:0005 class=00ff00 kind=nvswitch
GUEST summary gpus=2 switches=1 dma_ok=2 boots=1
GUEST agent open
GUEST ready
GUEST button
GUEST poweroff
"""
SECOND_BOOT = """
GUEST booted boots=2 vcpus=2 memory_mib=64
GUEST summary gpus=0 switches=0 dma_ok=0 boots=2
GUEST agent open
GUEST ready
GUEST button ignored
GUEST warned your reservation ends at 18:00 – save now
GUEST agent shutdown
GUEST poweroff
"""


def test_a_boot_is_read_whole() -> None:
    (report,) = read_console(FIRST_BOOT)
    assert (report.boots, report.vcpus, report.memory_mib) == (1, 2, 64)
    assert report.gpus[1] == GpuReport(
        address="03:01.0",
        id="1234:11e8",
        pci_class="00ff00",
        identification="010000ed",
        compute=Outcome.OK,
        dma=Outcome.OK,
    )
    assert all(gpu.is_usable for gpu in report.gpus)
    assert report.switches == (SwitchReport(address="03:02.0", id="1b36:0005", pci_class="00ff00"),)
    assert report.summary == Summary(gpus=2, switches=1, dma_ok=2, boots=1)
    assert report.dma_ok == 2
    assert report.has_agent
    assert report.is_ready
    assert report.was_button_pressed
    assert report.ignored_presses == 0
    assert report.is_powered_off
    assert not report.was_shut_down_by_agent


def test_boots_one_after_another_are_reports_of_their_own() -> None:
    first, second = read_console(FIRST_BOOT + SECOND_BOOT)
    assert (first.boots, second.boots) == (1, 2)
    assert first.warned == ()
    assert second.warned == ("your reservation ends at 18:00 – save now",)
    assert second.ignored_presses == 1
    assert second.was_shut_down_by_agent
    assert second.gpus == ()


def test_a_log_that_begins_in_the_middle_has_a_boot_of_unknown_number() -> None:
    cut = FIRST_BOOT[FIRST_BOOT.index("11e8 class") :]
    first, second = read_console(cut + SECOND_BOOT)
    assert first.boots is None
    assert [gpu.address for gpu in first.gpus] == ["03:01.0"]
    assert first.is_ready
    assert second.boots == 2


def test_a_log_cut_off_anywhere_says_less_and_nothing_else() -> None:
    (whole,) = read_console(FIRST_BOOT)
    for length in range(len(FIRST_BOOT)):
        for report in read_console(FIRST_BOOT[:length]):
            assert report.boots == 1
            assert report.gpus == whole.gpus[: len(report.gpus)]
            assert report.summary in (None, whole.summary)


def test_a_boot_cut_off_anywhere_leaves_the_next_one_whole() -> None:
    (second,) = read_console(SECOND_BOOT)
    for length in range(1, len(FIRST_BOOT)):
        assert read_console(FIRST_BOOT[:length] + SECOND_BOOT)[-1] == second


def test_trials_that_went_wrong_are_told_apart() -> None:
    (report,) = read_console(
        "GUEST booted boots=3 vcpus=1 memory_mib=64\n"
        "GUEST pci 01:00.0 10de:1db8 class=030200 kind=gpu ident=010000ed compute=ok dma=FAIL\n"
        "GUEST pci 02:00.0 10de:1db8 class=030200 kind=gpu ident=unreachable compute=unreachable dma=unreachable\n"
        "GUEST fault what=disk-write\n"
    )
    assert [gpu.dma for gpu in report.gpus] == [Outcome.FAIL, Outcome.UNREACHABLE]
    assert not any(gpu.is_usable for gpu in report.gpus)
    assert report.dma_ok == 0
    assert report.faults == ("disk-write",)


def test_what_others_print_is_passed_over() -> None:
    (report,) = read_console("SeaBIOS (version 1.16.2)\r\n" + FIRST_BOOT.replace("\n", "\r\n"))
    assert report.is_powered_off
    assert read_console("") == ()
    assert read_console("Booting from Hard Disk...\n") == ()
