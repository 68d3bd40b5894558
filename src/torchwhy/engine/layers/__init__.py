"""Layers: which one is meant, what passes it, and how that lies on the picture.

``layer``          from a module or its dotted name to a :class:`ResolvedLayer` (one of its calls, one of its tensors);
                   reading what passes layers, with or without gradient, and putting something else in its place
``function_layers``  functions as models that have layers
``embeddings``     ``layer="embeddings"``: the table of the token ids that are given
``row_axes``       where the tensors of layers have their rows
``grid_layout``    a layer's tensor as a grid of cells ``(N, C, *grid)``, where its shape alone says how; maps resized
``window_layout``  the same by *dependence*, where shapes do not say: which token a cell of a neighbouring grid comes from
``dependence``     which picture a layer's cells come from, and whether they are its cells at all
``drawn_row``      what is found out once, with a row that is drawn and not the caller's
``auto_layer``     ``layer="auto"``: the last layer with such a grid on which the target depends
"""
