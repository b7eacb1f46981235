"""How the demo catalogue is drawn: a small renderer and two dozen products made of curves.

`curves` makes outlines, `surfaces` gives them volume, `materials` and `patterns` clothe them, `painter` puts the
parts over each other, `scenery` is what stands behind; `goods_*` hold the products, `words` their captions and
`plan` says which products there are. Everything is a function of one seed.
"""
