#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every way that imgdamage knows: the finding it must raise is raised, the exit status is what the
worst finding says, and the check writes nothing."""
from imglib.patient import RECIPES
from imglib.programs import SANITIZED, check_json, folder_state
from imglib.testing import RANK, ImageTest, codes, main, sample, summary

# Damage that nothing detects yet. A name that starts to be detected must leave this list.
NOT_YET = set()


class DamageDetect(ImageTest):
    def test_every_recipe_is_detected(self):
        names = sample(RECIPES, len(RECIPES), 80)
        self.assertGreaterEqual(len(names), 80 if SANITIZED else 200)
        for name in names:
            with self.subTest(damage=name):
                self.check_one(name)

    def check_one(self, name):
        path, recipe = self.damaged(name)
        before = folder_state(self.folder)
        code, document = check_json(path, *recipe.options)
        self.assertEqual(folder_state(self.folder), before)
        expected = {f"qcow2-{code}" for code in recipe.codes}
        if name in NOT_YET:
            self.assertFalse(expected & codes(document), "now detected: take it off the list")
            return
        self.assertTrue(expected & codes(document), f"{expected} not in {summary(document)}")
        self.assertEqual(code, 4 if self.worst(document) >= RANK["leak"] else 0,
                         summary(document))
        self.assertEqual(document["exit-code"], code)
        for severity, key in (("corruption", "corruptions"), ("leak", "leaks")):
            found = any(f["severity"] == severity for f in document["findings"])
            self.assertEqual(document[key] > 0, found, f"{key} and the findings differ")

    def test_fail_on_moves_the_threshold(self):
        path, _ = self.damaged("snap-id-duplicate")
        self.assertEqual(check_json(path)[0], 0)
        self.assertEqual(check_json(path, "--fail-on", "warning")[0], 4)
        path, _ = self.damaged("leak-content")
        self.assertEqual(check_json(path)[0], 4)
        self.assertEqual(check_json(path, "--fail-on", "corruption")[0], 0)


if __name__ == "__main__":
    main()
