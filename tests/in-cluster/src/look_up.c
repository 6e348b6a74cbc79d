/* Asks the C library for a name's IPv4 addresses, and prints them. */

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int count, char **arguments) {
    if (count != 2) {
        fprintf(stderr, "usage: %s NAME\n", arguments[0]);
        return 2;
    }
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(arguments[1], NULL, &hints, &found);
    if (error) {
        fprintf(stderr, "%s: %s\n", arguments[1], gai_strerror(error));
        return 1;
    }
    for (struct addrinfo *one = found; one; one = one->ai_next) {
        char text[INET_ADDRSTRLEN];
        puts(inet_ntop(AF_INET, &((struct sockaddr_in *)one->ai_addr)->sin_addr, text, sizeof text));
    }
    freeaddrinfo(found);
    return 0;
}
