/* Segments one image: example IN.rgb OUT.ppm
 *
 * IN.rgb: HMSEG_HEIGHT rows of HMSEG_WIDTH pixels, HMSEG_CHANNELS bytes each, nothing else. With
 * ImageMagick: convert photo.jpg -resize WIDTHxHEIGHT! -depth 8 rgb:IN.rgb
 * OUT.ppm: each pixel in the colour of its class. */
#include <stdio.h>

#include "hmseg.h"

static unsigned char image[HMSEG_HEIGHT * HMSEG_WIDTH * HMSEG_CHANNELS];
static hmseg_label labels[HMSEG_HEIGHT * HMSEG_WIDTH];

int main(int count, char **arguments)
{
    hmseg_network *network;
    FILE *file;
    int code;

    if (count != 3) {
        fprintf(stderr, "usage: %s IN.rgb OUT.ppm\n", arguments[0]);
        return 2;
    }
    file = fopen(arguments[1], "rb");
    if (file == NULL || fread(image, 1, sizeof image, file) != sizeof image) {
        fprintf(stderr, "%s: not %d bytes\n", arguments[1], (int)sizeof image);
        return 2;
    }
    fclose(file);

    code = hmseg_create(0, &network);
    if (code == HMSEG_OK)
        code = hmseg_run(network, image, 0, labels, 0);
    if (code != HMSEG_OK) {
        fprintf(stderr, "%s\n", hmseg_error_text(code));
        return 1;
    }
    hmseg_destroy(&network);

    file = fopen(arguments[2], "wb");
    if (file == NULL) {
        fprintf(stderr, "%s: cannot be written\n", arguments[2]);
        return 2;
    }
    fprintf(file, "P6\n%d %d\n255\n", HMSEG_WIDTH, HMSEG_HEIGHT);
    for (int i = 0; i < HMSEG_HEIGHT * HMSEG_WIDTH; i++)
        fwrite(hmseg_colours[labels[i]], 1, 3, file);
    return fclose(file) ? 2 : 0;
}
