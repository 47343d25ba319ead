# SPDX-License-Identifier: Apache-2.0
"""What the image tests share: an independent reader of qcow2, runners for our tools and QEMU's,
makers of sound images and recipes that damage them. Python's standard library only."""
