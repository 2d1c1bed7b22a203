"""L_pxl written from the formulas of the paper with Python loops and floats; shares no code with
mmcast.
"""

import math


def softmax(values):
    exponentials = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def unit(vector):
    length = math.sqrt(dot(vector, vector))
    return [v / length if length else 0.0 for v in vector]


def filter_weights(size_in, size_out):
    """Antialiased bilinear resize in one dimension: a triangle as wide as the larger of the two
    pixels.
    """
    scale = size_in / size_out
    width = max(scale, 1.0)
    rows = []
    for out in range(size_out):
        centre = (out + 0.5) * scale
        weights = [max(0.0, 1 - abs(i + 0.5 - centre) / width) for i in range(size_in)]
        rows.append([w / sum(weights) for w in weights])
    return rows


def fuse(mask_logits, class_logits, size, temperature):
    """Nested lists [b][k][H][W] and [b][k][C+1] -> P_m [b][k][h][w] and F_c [b][c][h][w]."""
    masks, classes = [], []
    for logits, class_row in zip(mask_logits, class_logits):
        K, H, W = len(logits), len(logits[0]), len(logits[0][0])
        full = [
            [softmax([logits[k][i][j] / temperature for k in range(K)]) for j in range(W)]
            for i in range(H)
        ]
        down, across = filter_weights(H, size[0]), filter_weights(W, size[1])
        mask = [
            [
                [
                    sum(
                        down[p][i] * across[q][j] * full[i][j][k]
                        for i in range(H)
                        for j in range(W)
                    )
                    for q in range(size[1])
                ]
                for p in range(size[0])
            ]
            for k in range(K)
        ]
        probabilities = [softmax(row) for row in class_row]
        masks.append(mask)
        classes.append(
            [
                [
                    [
                        sum(mask[k][p][q] * probabilities[k][c] for k in range(K))
                        for q in range(size[1])
                    ]
                    for p in range(size[0])
                ]
                for c in range(len(class_row[0]))
            ]
        )
    return masks, classes


def query_embeddings(mask_logits, class_logits, size, temperature, sampling):
    """y[b, p] in the order of the pixels of the batch, with the parts that the sampling mode
    compares.
    """
    masks, classes = fuse(mask_logits, class_logits, size, temperature)
    rows = []
    for mask, expected_class in zip(masks, classes):
        for p in range(size[0]):
            for q in range(size[1]):
                P_m, F_c = [m[p][q] for m in mask], [c[p][q] for c in expected_class]
                rows.append(
                    {'mask': P_m, 'class': F_c, 'fusion': P_m + F_c, 'uniform': []}[sampling]
                )
    return rows


def s_deb(a, b):
    return max(0.0, 1 - dot(unit(a), unit(b)))


def nt_xent(positive, negative):
    """positive[a], negative[a][r], already divided by T."""
    total = 0.0
    for s_pos, row in zip(positive, negative):
        total += -math.log(math.exp(s_pos) / (math.exp(s_pos) + sum(math.exp(s) for s in row)))
    return total / len(positive)


def whole_loss(z_weak, z_strong, drawn, temperature):
    """z[b][d][h][w] as nested lists; drawn[a] are the negatives of pixel a, counted through the
    batch.
    """

    def pixels(z):
        return [
            unit([channel[i][j] for channel in image])
            for image in z
            for i in range(len(image[0]))
            for j in range(len(image[0][0]))
        ]

    weak, strong = pixels(z_weak), pixels(z_strong)
    positive = [dot(w, s) / temperature for w, s in zip(weak, strong)]
    negative = [[dot(weak[a], weak[n]) / temperature for n in row] for a, row in enumerate(drawn)]
    return nt_xent(positive, negative)
