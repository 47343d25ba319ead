#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every way to damage an image, repaired in both modes: a dry run writes nothing, a repair that says
all is mended leaves an image that QEMU and our own count of references agree with, a second repair
writes nothing, a rollback restores every byte, and `safe` changes nothing that the guest can read."""
from imglib.patient import RECIPES
from imglib.roundtrip import RoundtripTest, snapshots_to_compare
from imglib.testing import main, sample

# QEMU cannot open these whatever is repaired: the backing file is not there.
NOT_FOR_QEMU = {"backing-missing"}


class RepairRoundtrip(RoundtripTest):
    def test_every_recipe_in_both_modes(self):
        for name in sample(RECIPES, 45, 20):
            for mode in ("safe", "all"):
                with self.subTest(damage=name, mode=mode):
                    path, recipe = self.damaged(name)
                    self.roundtrip(
                        path, mode, recipe.options, luks=recipe.base.content == "luks",
                        snapshots=snapshots_to_compare(recipe.base, [name]),
                        guest_keeps=recipe.harmless, for_qemu=name not in NOT_FOR_QEMU)


if __name__ == "__main__":
    main()
